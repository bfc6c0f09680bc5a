# frozen_string_literal: true

require "timeout"
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

      # `earlier`: what went over the connection so far.
      def initialize(connection, sender, earlier = nil)
        earlier&.settle
        @driver = Driver.new(connection)
        @sender = sender
        @results = Results.new(@driver, sender)
        reconnecting
        @sender.joined if earlier && @driver.state == ::PG::PQTRANS_INTRANS
      end

      # Whether a method is called by the library, or by what is here, and not by the application.
      def inside?
        @driver.inside?
      end

      # --- statements whose results are wanted at once ---------------------------------------

      # A text without parameters, which may hold several statements.
      def simple(sql, block, &plain)
        sql, statement = sent_text(sql)
        run([sql, statement], block, alone: alone?(sql), **by_parameters(sql, []), &plain)
      end

      def extended(args, block, &plain)
        return simple(args[0], block, &plain) if args[1].nil? # as ruby-pg has it

        run(sent_text(args[0]), block, **by_parameters(*args), &plain)
      end

      def prepared(args, block, &plain)
        run(@prepared[args[0]], block, **by_name(args), &plain)
      end

      def prepare(args, block)
        settle
        ask_before(args)
        result = @driver.inside { yield }
        @prepared.add(args, text(args[1]))
        given(result, block)
      rescue ::PG::Error
        @sender.unsure
        raise
      end

      # --- those that are only sent ---------------------------------------------------------

      def send_simple(args, &plain)
        return send_extended(args, &plain) unless args[1].nil?

        sql, statement = sent_text(args[0])
        send_only([sql, statement], alone: alone?(sql), **by_parameters(sql, []), &plain)
      end

      def send_extended(args, &plain)
        send_only(sent_text(args[0]), **by_parameters(*args), &plain)
      end

      def send_prepared(args, &plain)
        send_only(@prepared[args[0]], **by_name(args), &plain)
      end

      def send_prepare(args)
        refuse_another unless @pipeline
        ask_before(args)
        send_other { yield }
        @prepared.expect(args, text(args[1]))
        nil
      end

      def send_other(*)
        refuse_another unless @pipeline
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
        (@pipeline || @results).skip_message
      end

      # What the connection has to say of the last failure.
      def told
        @results.told
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

      # Before anything else goes over the connection.
      def settle
        @results.settle
        @results.told = nil
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
        return yield if @pipeline

        settle
        # In a pipeline nothing can be asked.
        may_send? if [::PG::PQTRANS_IDLE, ::PG::PQTRANS_INTRANS].include?(@driver.state)
        yield
        @pipeline = Pipeline.new(@driver, @sender)
        nil
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

      # A text that is sent now, in the place of the unnamed statement.
      def sent_text(sql)
        @prepared.unnamed = nil
        text(sql)
      end

      # Whether a text can go the protocol's other way, on which a `$1` is a parameter.
      def alone?(sql)
        sql = Statements.readable(sql)
        !sql.include?("$") || !Statements.parameters?(sql)
      end

      def by_parameters(*args)
        { sender: [:send_query_params, args] }
      end

      # Where there is an unnamed statement, a message takes its place: it is prepared once more.
      def by_name(args)
        again = (@prepared.unnamed || [] if args[0].to_s.empty?)
        { sender: [:send_query_prepared, args], again: again }
      end

      # An unnamed statement would not outlive the question.
      def ask_before(args)
        return unless args[0].to_s.empty? && !@pipeline

        @prepared.unnamed = nil
        may_send? if [::PG::PQTRANS_IDLE, ::PG::PQTRANS_INTRANS].include?(@driver.state)
      end

      def run((sql, statement), block, sender:, alone: true, again: nil)
        return @driver.inside { yield } if @pipeline # which says that it can't be

        due = due_before(statement, sql, again)
        result =
          if due.nil? then plainly(statement) { yield }
          elsif alone && pipelined?(statement)
            in_pipeline(statement, due, again, *sender) { last_result }
          else apart(statement, due, again) { yield }
          end
        @prepared.ran(sql) unless statement.wrappable
        given(result, block)
      end

      def due_before(statement, sql, again)
        settle
        # Of what was sent before this was installed.
        @driver.call(:discard_results) if @driver.state == ::PG::PQTRANS_ACTIVE
        state = @driver.state
        return if [::PG::PQTRANS_INERROR, ::PG::PQTRANS_UNKNOWN].include?(state) || again&.empty?

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
      def in_pipeline(statement, due, again, method, args)
        @results.expect(statement, due: due, stage: :message, before: again ? 2 : 1)
        up_to_a_sync do
          @driver.send_message(due)
          @driver.call(:send_prepare, *again) if again
          @driver.call(method, *args)
        end
        yield
      rescue *FAILURES
        @results.settle
        raise
      end

      # What is sent in a pipeline of ours. It may fail in any way where values are encoded by the
      # application; and who waits for an answer to what was sent, must get one.
      def up_to_a_sync
        @driver.call(:enter_pipeline_mode)
        yield
        sent = true
        @driver.call(:pipeline_sync)
      rescue Exception => e
        raise if sent

        own = e.is_a?(StandardError) && !e.is_a?(::Timeout::Error)
        own ? @results.settle : @results.sync_once_more
        raise
      end

      # The message before, and in autocommit a transaction block around the two.
      def apart(statement, due, again)
        unless due.wrap
          emit_apart(due)
          @driver.call(:prepare, *again) if again
          return plainly(statement) { yield }
        end

        begin_with(due, statement)
        @driver.call(:prepare, *again) if again
        result = @driver.inside { yield }
        @results.end_block&.check unless Driver.copy?(result)
        result
      rescue *FAILURES
        @results.settle
        raise
      end

      def emit_apart(due)
        @driver.emit(due)
        @sender.sent(due)
      end

      def begin_with(due, statement)
        @results.expect(statement, commit: true, stage: (:begin if PIPELINES))
        if PIPELINES
          up_to_a_sync do
            @driver.call(:send_query_params, "begin", [])
            @driver.send_message(due)
          end
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

      def send_only((sql, statement), sender:, alone: true, again: nil)
        @prepared.ran(sql) unless statement.wrappable
        return send_in_pipeline(statement, sql, again) { yield } if @pipeline

        refuse_another
        send_now(statement, due_before(statement, sql, again), sender, alone, again) { yield }
      end

      def send_now(statement, due, sender, alone, again)
        if due && alone && pipelined?(statement)
          in_pipeline(statement, due, again, *sender) { nil }
        else
          due ? send_apart(statement, due) : @results.expect(statement)
          @driver.call(:prepare, *again) if due && again
          @driver.inside { yield }
        end
        nil
      rescue *FAILURES
        @results.settle
        raise
      end

      # As ruby-pg does where results were not all read.
      def refuse_another
        return @results.told = nil unless @results.waiting? || @driver.state == ::PG::PQTRANS_ACTIVE

        @driver.refuse("another command is already in progress\n")
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

      def send_in_pipeline(statement, sql, again)
        @pipeline.before(statement, sql, again) unless again&.empty?
        @driver.inside { yield }
        @pipeline.sent_theirs(statement)
        nil
      end
    end
  end
end
