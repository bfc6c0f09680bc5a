# frozen_string_literal: true

require "bemi/pg/driver"
require "bemi/pg/pipeline"
require "bemi/pg/prepared"
require "bemi/pg/results"
require "bemi/sender"

module Bemi
  module PG
    # What goes over one connection: the messages, before the statements that they belong to.
    #
    # Message and statement are sent in one pipeline, up to one Sync: without a transaction block,
    # they are one transaction, which the server commits at that Sync, whoever reads the results. A
    # COPY and several statements in one text can't be in a pipeline; they get a transaction block.
    class Exchange
      # What libpq has from 14 on.
      PIPELINES = ::PG::Connection.method_defined?(:enter_pipeline_mode)
      # What says, before anything runs, that a statement can't be sent, or on the server, that it
      # can't be done.
      FAILURES = [::PG::Error, TypeError, ArgumentError].freeze
      private_constant :PIPELINES, :FAILURES

      def initialize(connection, sender)
        @driver = Driver.new(connection)
        @sender = sender
        @results = Results.new(@driver, sender)
        reconnecting
      end

      # Whether a method is called by the library, or by what is here, and not by the application.
      def inside?
        @driver.inside?
      end

      # --- statements whose results are wanted at once ---------------------------------------

      # A text without parameters, which may hold several statements.
      def simple(sql, block, &plain)
        sql, statement = text(sql)
        run([sql, statement], block, alone: alone?(sql), **by_parameters(sql, []), &plain)
      end

      def extended(args, block, &plain)
        return simple(args[0], block, &plain) if args[1].nil? # as ruby-pg has it

        run(text(args[0]), block, **by_parameters(*args), &plain)
      end

      def prepared(args, block, &plain)
        run(@prepared[args[0]], block, sender: [:send_query_prepared, args], &plain)
      end

      def prepare(args, block)
        settle
        result = @driver.inside { yield }
        @prepared[args[0]] = text(args[1])
        given(result, block)
      rescue ::PG::Error
        @sender.unsure
        raise
      end

      # --- those that are only sent ---------------------------------------------------------

      def send_simple(args, &plain)
        return send_extended(args, &plain) if args.size > 1

        sql, statement = text(args[0])
        send_only([sql, statement], alone: alone?(sql), **by_parameters(sql, []), &plain)
      end

      def send_extended(args, &plain)
        send_only(text(args[0]), **by_parameters(*args), &plain)
      end

      def send_prepared(args, &plain)
        send_only(@prepared[args[0]], sender: [:send_query_prepared, args], &plain)
      end

      def send_prepare(args)
        send_other { yield }
        @prepared[args[0]] = text(args[1])
        nil
      end

      def send_other(*)
        settle unless @pipeline
        @driver.inside { yield }
        @pipeline&.sent_theirs
        nil
      end

      # --- results --------------------------------------------------------------------------

      # Whether results have to be read through here.
      def waiting?
        !inside? && (!@pipeline.nil? || @results.waiting?)
      end

      def next_result
        (@pipeline || @results).next
      end

      def last_result
        @results.last
      end

      # A result, or what the application's block makes of it.
      def given(result, block)
        return result unless block && result

        begin
          block.call(result)
        ensure
          result.clear
        end
      end

      # Reads as far as to the statement's own results.
      def at_statement
        @results.skip_message
      end

      def busy?
        @results.busy? { @driver.inside { yield } }
      end

      # Around the end of rows that are sent.
      def copied
        result = @driver.inside { yield }
        @results.copied
        result
      end

      # Around each row that is received.
      def copying
        row = @driver.inside { yield }
        @results.copied if row.nil?
        row
      end

      def settle
        @results.settle
      end

      # --- the connection -------------------------------------------------------------------

      # Sends what is current into the open transaction.
      def emit
        settle
        case @driver.state
        when ::PG::PQTRANS_INTRANS
          emit_apart(@sender.now) if may_send?
        when ::PG::PQTRANS_IDLE
          Kernel.warn("bemi: Bemi::PG.emit was called outside of a transaction, where no write can " \
                      "follow in the same one", uplevel: 2)
        end
      end

      # Another session, of which nothing is known yet.
      def reconnecting
        @results.forget
        @prepared = Prepared.new(@sender)
        @pipeline = nil
        @sender.reconnected
      end

      # --- pipelines of the application's ---------------------------------------------------

      def enter_pipeline
        return if @pipeline

        settle
        # In a pipeline nothing can be asked.
        may_send? if [::PG::PQTRANS_IDLE, ::PG::PQTRANS_INTRANS].include?(@driver.state)
        @pipeline = Pipeline.new(@driver, @sender)
      end

      def exit_pipeline
        @pipeline = nil
        @sender.unsure
      end

      def synced
        @pipeline&.synced
      end

      private

      # A text and what it does; what is none is ruby-pg's to refuse.
      def text(sql)
        sql = sql.respond_to?(:to_str) ? sql.to_str : ""
        [sql, @sender.statement(sql)]
      end

      # Whether a text can go the protocol's other way, on which a `$1` is a parameter.
      def alone?(sql)
        sql = Statements.readable(sql)
        !sql.include?("$") || !Statements.parameters?(sql)
      end

      def by_parameters(*args)
        { sender: [:send_query_params, args] }
      end

      def run((sql, statement), block, sender:, alone: true)
        return @driver.inside { yield } if @pipeline # which says that it can't be

        due = due_before(statement, sql)
        result =
          if due.nil? then plainly(statement) { yield }
          elsif alone && pipelined?(statement) then in_pipeline(statement, due, *sender) { last_result }
          else apart(statement, due) { yield }
          end
        @prepared.ran(Statements.readable(sql)) unless statement.writes || statement.wrappable
        given(result, block)
      end

      def due_before(statement, sql)
        settle
        # Of what was sent before this was installed.
        @driver.call(:discard_results) if @driver.state == ::PG::PQTRANS_ACTIVE
        state = @driver.state
        return if [::PG::PQTRANS_INERROR, ::PG::PQTRANS_UNKNOWN].include?(state)

        due = @sender.due(statement, in_transaction: state == ::PG::PQTRANS_INTRANS, text: sql)
        due if due && may_send?
      end

      def pipelined?(statement)
        PIPELINES && !statement.several && !statement.copies
      end

      # Whether the role may; asked once for each connection.
      def may_send?
        return @sender.allowed unless @sender.allowed.nil?

        @sender.checked(@driver.row(Sender::CHECK) || ["f", "f", "", "t"])
      end

      def plainly(statement)
        result = @driver.inside { yield }
        Driver.copy?(result) ? @results.expect(statement) : @sender.ran(statement)
        result
      rescue Exception # a Timeout, too
        @sender.failed(statement)
        raise
      end

      # Message and statement in one round trip.
      def in_pipeline(statement, due, method, args)
        @results.expect(statement, due: due, stage: :message)
        @driver.call(:enter_pipeline_mode)
        @driver.send_message(due)
        @driver.call(method, *args)
        @driver.call(:pipeline_sync)
        yield
      rescue *FAILURES
        settle
        raise
      end

      # The message before, and in autocommit a transaction block around the two.
      def apart(statement, due)
        unless due.wrap
          emit_apart(due)
          return plainly(statement) { yield }
        end

        begin_with(due, statement)
        result = @driver.inside { yield }
        @results.end_block&.check unless Driver.copy?(result)
        result
      rescue *FAILURES
        settle
        raise
      end

      def emit_apart(due)
        @driver.emit(due)
        @sender.sent(due)
      end

      def begin_with(due, statement)
        @results.expect(statement, commit: true, stage: (:begin if PIPELINES))
        if PIPELINES
          @driver.call(:enter_pipeline_mode)
          @driver.call(:send_query_params, "begin", [])
          @driver.send_message(due)
          @driver.call(:pipeline_sync)
          failure_to_sync&.check
          @results.begun
        else
          @driver.call(:exec, "begin")
          @driver.emit(due)
        end
      end

      def failure_to_sync
        failure = nil
        until Driver.sync?(result = @driver.call(:get_result))
          failure ||= result if result && Driver.error?(result)
        end
        @driver.call(:exit_pipeline_mode)
        failure
      end

      def send_only((sql, statement), sender:, alone: true)
        return send_in_pipeline(statement, sql) { yield } if @pipeline

        due = due_before(statement, sql)
        if due && alone && pipelined?(statement)
          in_pipeline(statement, due, *sender) { nil }
        else
          due ? send_apart(statement, due) : @results.expect(statement)
          @driver.inside { yield }
        end
        nil
      rescue *FAILURES
        settle
        raise
      end

      def send_apart(statement, due)
        return begin_with(due, statement) if due.wrap && statement.copies && !statement.several

        if due.wrap
          # Its COMMIT would be sent when the results are read, which nobody has to do.
          Notice.warn_once("several statements that are sent at once, in autocommit and without " \
                           "waiting for them, are without a context; fix: send them one by one, " \
                           "or in a transaction")
        else
          emit_apart(due)
        end
        @results.expect(statement)
      end

      def send_in_pipeline(statement, sql)
        @pipeline.before(statement, sql)
        @driver.inside { yield }
        @pipeline.sent_theirs(statement)
        nil
      end
    end
  end
end
