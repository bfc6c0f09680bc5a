# frozen_string_literal: true

require "pg"
require "bemi"
require "bemi/pg/exchange"
require "bemi/pg/sending"

module Bemi
  # Sends the current context through connections of ruby-pg: before the first write of each
  # transaction, by itself (`install`), or when it is told to (`emit`).
  #
  # The message travels with the write that it belongs to, in one round trip, where libpq has
  # pipelines (14 and later). In autocommit the two are one transaction.
  module PG
    class << self
      # Makes an open connection send the context of its transactions; gives the connection.
      # Statements that it has prepared before count as writes. `options`: see `Bemi::Sender`.
      def install(connection, **options)
        unless connection.is_a?(::PG::Connection)
          raise ArgumentError, "#{connection.class} is no connection of ruby-pg"
        end

        earlier = connection.instance_variable_get(:@bemi)
        exchange = Exchange.new(connection, Sender.new(**options), earlier)
        connection.instance_variable_set(:@bemi, exchange)
        connection.extend(Sending)
      end

      # Sends what is current, `{}` too, so that an earlier context of the transaction ends. Sends
      # nothing into a transaction that has failed, and warns where there is none that it could
      # belong to.
      def emit(connection)
        exchange = connection.instance_variable_get(:@bemi)
        raise ArgumentError, "Bemi::PG.install was not called with it" unless exchange

        exchange.emit
      end
    end
  end
end
