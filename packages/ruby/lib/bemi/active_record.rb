# frozen_string_literal: true

require "active_record"
require "active_record/connection_adapters/postgresql_adapter"
require "bemi/pg"

module Bemi
  # Active Record's connections to PostgreSQL send the current context.
  #
  # Each connection that an adapter makes or makes anew comes from its class's public `new_client`,
  # in Rails 6.1 as in 8, where connections are made late and again after a failure; so that is
  # where `Bemi::PG.install` is called. To ask an adapter for its raw connection instead, in a
  # callback of the pool, would make Rails connect at once and give up mending it.
  module ActiveRecord
    class << self
      # What connections that are made from now on are installed with; nil: they are not.
      attr_reader :options

      # Connections to PostgreSQL that are made from now on send the context of their transactions;
      # in all pools, those of adapters made of PostgreSQL's among them. `options`: see
      # `Bemi::Sender`. Called again, they replace the earlier ones. Active Record writes some values
      # into its statements: with `sql:`, they are recorded up to the first one.
      def install(**options)
        Sender.new(**options) # a misspelt one is told here, and not when a connection is made
        @options = options
        adapter = ::ActiveRecord::ConnectionAdapters::PostgreSQLAdapter
        adapter.singleton_class.prepend(Clients) unless adapter.singleton_class.include?(Clients)
      end

      # Connections that are made from now on send nothing.
      def uninstall
        @options = nil
      end
    end

    # What is added to the adapter's class.
    module Clients
      def new_client(...)
        options = Bemi::ActiveRecord.options
        client = super
        options ? PG.install(client, literal: true, **options) : client
      end
    end
    private_constant :Clients
  end
end
