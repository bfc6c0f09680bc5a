# frozen_string_literal: true

require "sequel"
require "bemi/pg"

module Bemi
  # Sequel's connections to PostgreSQL send the current context.
  #
  #     Bemi::Sequel.install(DB)
  module Sequel
    # Connections of this database send the context of their transactions; those that are open and
    # not in use are closed, to be made again. `options`: see `Bemi::Sender`.
    #
    # Sequel writes values into its statements: with `sql:`, they are recorded up to the first one.
    def self.install(database, **options)
      Sender.new(**options) # a misspelt one is told here, and not when a connection is made
      unless database.database_type == :postgres && database.adapter_scheme == :postgres
        raise ArgumentError, "#{database.inspect} is not of the adapter postgres"
      end

      database.instance_variable_set(:@bemi_options, options)
      database.extend(Connecting)
      database.disconnect
      database
    end

    # What is added to a database.
    module Connecting
      def connect(server)
        PG.install(super, literal: true, **@bemi_options)
      end
    end
    private_constant :Connecting
  end
end
