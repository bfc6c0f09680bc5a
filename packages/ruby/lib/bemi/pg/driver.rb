# frozen_string_literal: true

module Bemi
  module PG
    # ruby-pg's own methods of one connection, past what is added to it; and whether one of them is
    # running, so that what it calls in turn passes through.
    class Driver
      STRINGS = ::PG::TypeMapAllStrings.new
      # A result that comes again and again until the rows have gone over the connection.
      COPIES = [::PG::PGRES_COPY_IN, ::PG::PGRES_COPY_OUT, ::PG::PGRES_COPY_BOTH].freeze
      ERRORS = [
        ::PG::PGRES_FATAL_ERROR, ::PG::PGRES_BAD_RESPONSE,
        *(::PG::PGRES_PIPELINE_ABORTED if ::PG.const_defined?(:PGRES_PIPELINE_ABORTED))
      ].freeze
      OWN = %i[
        exec exec_params prepare send_query send_query_params send_query_prepared send_prepare
        get_result discard_results enter_pipeline_mode exit_pipeline_mode pipeline_sync
      ].select { |name| ::PG::Connection.method_defined?(name) }
                               .to_h { |name| [name, ::PG::Connection.instance_method(name)] }.freeze
      private_constant :STRINGS, :COPIES, :ERRORS, :OWN

      def self.copy?(result)
        COPIES.include?(result.result_status)
      end

      def self.error?(result)
        ERRORS.include?(result.result_status)
      end

      def self.sync?(result)
        result&.result_status == ::PG::PGRES_PIPELINE_SYNC
      end

      def initialize(connection)
        @connection = connection
        @inside = false
      end

      # Whether a method is called by the library, or by what is here, and not by the application.
      def inside?
        @inside
      end

      def inside
        before, @inside = @inside, true
        yield
      ensure
        @inside = before
      end

      def call(name, *args)
        inside { OWN.fetch(name).bind_call(@connection, *args) }
      end

      def lost?
        @connection.status != ::PG::CONNECTION_OK
      end

      # Raises what ruby-pg does where it can't send.
      def refuse(message)
        error = ::PG::UnableToSend.new(message)
        error.instance_variable_set(:@connection, @connection)
        raise error
      end

      # Whether a transaction block is open.
      def open?
        [::PG::PQTRANS_INTRANS, ::PG::PQTRANS_INERROR].include?(state)
      end

      def pipeline?
        @connection.pipeline_status != ::PG::PQ_PIPELINE_OFF
      end

      def state
        @connection.transaction_status
      end

      # The first row that a statement of ours gives, as texts, whatever the application has its
      # values turned into.
      def row(statement)
        result = call(:exec, statement)
        result.type_map = STRINGS
        result.values.first
      end

      # Sends a message, and waits for nothing.
      def send_message(due)
        call(:send_query_params, due.statement, [due.content], 0, STRINGS)
      end

      # Sends a message, and waits until it is there.
      def emit(due)
        call(:exec_params, due.statement, [due.content], 0, STRINGS)
      end
    end
  end
end
