# frozen_string_literal: true

require "bemi/pg/pipeline"
require "bemi/sender"

module Bemi
  module PG
    # What goes between one connection and its server: the messages, before the statements that they
    # belong to, and what came of them.
    #
    # Message and statement are sent in one pipeline, up to one Sync: without a transaction block,
    # they are one transaction, which the server commits at that Sync, whoever reads the results. A
    # COPY and several statements in one text can't be in a pipeline; they get a transaction block.
    class Exchange
      # A statement whose results were not all read. `stage`: of a pipeline of ours, whether its
      # message's results come next, the statement's or the Sync's. `commit`: a transaction block
      # around it has to be ended.
      Pending = Struct.new(:statement, :due, :stage, :commit, :failed, keyword_init: true)
      private_constant :Pending

      STRINGS = ::PG::TypeMapAllStrings.new
      COPIES = [::PG::PGRES_COPY_IN, ::PG::PGRES_COPY_OUT, ::PG::PGRES_COPY_BOTH].freeze
      PIPELINES = ::PG::Connection.method_defined?(:enter_pipeline_mode)
      # ruby-pg's own, past what is added to the connection.
      RAW = %i[
        exec exec_params send_query send_query_params send_query_prepared get_result discard_results
        enter_pipeline_mode exit_pipeline_mode pipeline_sync
      ].select { |name| ::PG::Connection.method_defined?(name) }
                               .to_h { |name| [name, ::PG::Connection.instance_method(name)] }.freeze
      private_constant :STRINGS, :COPIES, :PIPELINES, :RAW

      def initialize(connection, sender)
        @connection = connection
        @sender = sender
        @inside = false
        reconnecting
      end

      # Whether a method is called by the library, or by what is here, and not by the application.
      def inside?
        @inside
      end

      # Whether results have to be read through here.
      def waiting?
        !@inside && !(@pending || @results || @pipeline).nil?
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
        run(@prepared[args[0].to_s], block, sender: [:send_query_prepared, args], &plain)
      end

      def prepare(args, block)
        settle
        result = inside { yield }
        remember(args)
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
        send_only(@prepared[args[0].to_s], sender: [:send_query_prepared, args], &plain)
      end

      def send_prepare(args)
        send_other(args) { yield }
        remember(args)
        nil
      end

      def send_other(_args)
        settle unless @pipeline
        inside { yield }
        @pipeline&.sent_theirs
        nil
      end

      # --- results --------------------------------------------------------------------------

      # What ruby-pg's get_result would give, had nothing been sent besides.
      def next_result
        return @pipeline.next_result if @pipeline
        return take_kept if @results
        return raw(:get_result) unless @pending

        case @pending.stage
        when nil then plain_result
        when :message then at_statement && next_result
        when :statement then statement_result
        else synced_result
        end
      end

      # The last of the results; raises what it tells of.
      def last_result
        last = nil
        while (result = next_result)
          last&.clear
          last = result
          break if COPIES.include?(result.result_status)
        end
        last&.check
        last
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

      # Reads the message's results, if they come next.
      def at_statement
        return true unless @pending&.stage == :message

        while (result = raw(:get_result))
          @pending.failed = keep_error(result) || @pending.failed
        end
        @pending.stage = :statement
        true
      end

      # Around the end of rows that are sent.
      def copied
        result = inside { yield }
        # The server has all that it needs to commit, whoever reads what came of it.
        keep_results if @pending&.commit
        result
      end

      # Around each row that is received.
      def copying
        row = inside { yield }
        keep_results if row.nil? && @pending&.commit
        row
      end

      # --- the connection -------------------------------------------------------------------

      # Sends what is current into the open transaction.
      def emit
        settle
        case @connection.transaction_status
        when ::PG::PQTRANS_INTRANS
          send_apart(@sender.now) if may_send?
        when ::PG::PQTRANS_IDLE
          Kernel.warn("bemi: Bemi::PG.emit was called outside of a transaction, where no write can " \
                      "follow in the same one", uplevel: 2)
        end
      end

      # Reads what the application has left unread, as ruby-pg does before a statement.
      def settle
        @results = nil
        return unless @pending
        return reconnecting unless @connection.status == ::PG::CONNECTION_OK

        while (result = next_result)
          # It would come again and again.
          raw(:discard_results) if COPIES.include?(result.result_status)
          result.clear
        end
        @results = nil
      end

      # Another session, of which nothing is known yet.
      def reconnecting
        @pending = @results = @pipeline = nil
        @prepared = Hash.new { |_, name| ["", @sender.statement("execute \"#{name}\"")] }
        @sender.reconnected
      end

      # --- pipelines of the application's ---------------------------------------------------

      def enter_pipeline
        settle
        # In a pipeline nothing can be asked.
        may_send? if !@pipeline && @connection.transaction_status == ::PG::PQTRANS_IDLE
        @pipeline ||= Pipeline.new(@sender, ->(name, *args) { raw(name, *args) })
      end

      def exit_pipeline
        @pipeline = nil
        @sender.unsure
      end

      def synced
        @pipeline&.synced
      end

      private

      # ruby-pg's own method.
      def raw(name, *args)
        inside { RAW.fetch(name).bind_call(@connection, *args) }
      end

      def inside
        before, @inside = @inside, true
        yield
      ensure
        @inside = before
      end

      # A text and what it does; what is none is ruby-pg's to refuse.
      def text(sql)
        sql = sql.respond_to?(:to_str) ? sql.to_str : ""
        [sql, @sender.statement(sql)]
      end

      # Whether it can go the protocol's other way, on which a `$1` is a parameter.
      def alone?(sql)
        !sql.include?("$")
      end

      def by_parameters(*args)
        { sender: [:send_query_params, args] }
      end

      def remember(args)
        @prepared[args[0].to_s] = text(args[1])
      end

      FORGETS = /\A\s*(?:deallocate\s+(?:prepare\s+)?(?:"(?<quoted>(?:[^"]|"")*)"|(?<name>\w+))|discard\s+all)/i
                .freeze
      private_constant :FORGETS

      def forget(sql)
        return unless (found = FORGETS.match(sql))

        name = found[:quoted]&.gsub('""', '"') || found[:name]&.downcase
        name.nil? || name == "all" ? @prepared.clear : @prepared.delete(name)
      end

      def run((sql, statement), block, sender:, alone: true)
        return inside { yield } if @pipeline # which says that it can't be

        due = due_before(statement, sql)
        alone &&= pipelined?(statement)
        result =
          if due.nil? then plainly(statement) { yield }
          elsif alone then in_pipeline(statement, due, *sender) { last_result }
          else apart(statement, due) { yield }
          end
        forget(sql) if !statement.writes && !statement.wrappable
        given(result, block)
      end

      def due_before(statement, sql)
        settle
        status = @connection.transaction_status
        if status == ::PG::PQTRANS_ACTIVE # of what was sent before this was installed
          raw(:discard_results)
          status = @connection.transaction_status
        end
        return if [::PG::PQTRANS_INERROR, ::PG::PQTRANS_UNKNOWN].include?(status)

        in_transaction = status == ::PG::PQTRANS_INTRANS
        due = @sender.due(statement, in_transaction: in_transaction, text: sql)
        due if due && may_send?
      end

      def pipelined?(statement)
        PIPELINES && !statement.several && !statement.copies
      end

      # Whether the role may; asked once for each connection.
      def may_send?
        return @sender.allowed unless @sender.allowed.nil?

        result = raw(:exec, Sender::CHECK)
        result.type_map = STRINGS
        @sender.checked(result.ntuples.zero? ? ["f", "f", "", "t"] : result.values[0])
      end

      def plainly(statement)
        result = inside { yield }
        if COPIES.include?(result.result_status)
          @pending = Pending.new(statement: statement)
        else
          @sender.ran(statement)
        end
        result
      rescue StandardError
        @sender.failed(statement)
        raise
      end

      # Message and statement in one round trip.
      def in_pipeline(statement, due, method, args)
        raw(:enter_pipeline_mode)
        @pending = Pending.new(statement: statement, due: due, stage: :message)
        begin
          send_message(due)
          raw(method, *args)
        rescue Exception # it can't be sent; the message alone says nothing
          raw(:pipeline_sync)
          at_statement
          @pending.failed = true
          @pending.stage = :sync
          settle
          raise
        end
        raw(:pipeline_sync)
        yield
      end

      def send_message(due)
        raw(:send_query_params, due.statement, [due.content], 0, STRINGS)
      end

      # The message before, and in autocommit a transaction block around the two.
      def apart(statement, due)
        return send_apart(due) && plainly(statement) { yield } unless due.wrap

        begin_with(due)
        @pending = Pending.new(statement: statement, commit: true)
        result = inside { yield }
        return result if COPIES.include?(result.result_status)

        ended = end_block
        ended&.check
        result
      rescue ::PG::Error, TypeError, ArgumentError
        # What has failed on the server is rolled back by COMMIT, too.
        end_block if @pending&.commit
        raise
      end

      def send_apart(due)
        raw(:exec_params, due.statement, [due.content], 0, STRINGS)
        @sender.sent(due)
        true
      end

      def begin_with(due)
        if PIPELINES
          raw(:enter_pipeline_mode)
          raw(:send_query_params, "begin", [])
          send_message(due)
          raw(:pipeline_sync)
          begun
        else
          raw(:exec, "begin")
          raw(:exec_params, due.statement, [due.content], 0, STRINGS)
        end
      end

      def begun
        failure = nil
        loop do
          result = raw(:get_result)
          break if result&.result_status == ::PG::PGRES_PIPELINE_SYNC

          failure ||= result if result&.result_status == ::PG::PGRES_FATAL_ERROR
        end
        raw(:exit_pipeline_mode)
        return unless failure

        raw(:exec, "rollback")
        failure.check
      end

      def send_only((sql, statement), sender:, alone: true)
        return send_in_pipeline(statement, sql) { yield } if @pipeline

        due = due_before(statement, sql)
        return in_pipeline(statement, due, *sender) { nil } if due && alone && pipelined?(statement)

        commit = due && send_before(statement, due)
        inside { yield }
        @pending = Pending.new(statement: statement, commit: commit)
        nil
      rescue ::PG::Error, TypeError, ArgumentError
        end_block if commit
        raise
      end

      # Whether a transaction block is around it then.
      def send_before(statement, due)
        if !due.wrap then send_apart(due) && nil
        elsif statement.copies && !statement.several then begin_with(due) || true
        else
          # Its COMMIT would be sent when the results are read, which nobody has to do.
          Notice.warn_once("several statements that are sent at once, in autocommit and without " \
                           "waiting for them, are without a context; fix: send them one by one, " \
                           "or in a transaction")
        end
      end

      def send_in_pipeline(statement, sql)
        due = @sender.due(statement, in_transaction: true, text: sql)
        @pipeline.send_message(due) if due && @sender.allowed
        inside { yield }
        @pipeline.sent_theirs(statement)
        nil
      end

      # --- results --------------------------------------------------------------------------

      def plain_result
        result = raw(:get_result)
        if result
          @pending.failed ||= error?(result)
          return result
        end
        @pending.commit ? end_block : done
      end

      # The end of a transaction block around a statement; what came of it, when it failed.
      def end_block
        statement = @pending&.statement
        @pending = nil
        return unless @connection.status == ::PG::CONNECTION_OK

        raw(:discard_results)
        raw(:send_query, "commit")
        failure = nil
        while (result = raw(:get_result))
          failure = result if error?(result)
        end
        @sender.ended
        @sender.ran(statement) if statement && !failure
        @results = [nil] if failure
        failure
      end

      def statement_result
        result = raw(:get_result)
        if result.nil?
          @pending.stage = :sync
          return synced_result
        end
        # Of a message that failed, its error is what the statement has to tell.
        @pending.failed ||= error?(result)
        kept, @kept_error = @kept_error, nil
        kept || result
      end

      # A Sync commits, which may fail, too.
      def synced_result
        loop do
          result = raw(:get_result)
          return done if result.nil? && @connection.status != ::PG::CONNECTION_OK
          next if result.nil?

          if result.result_status == ::PG::PGRES_PIPELINE_SYNC
            raw(:exit_pipeline_mode)
            return done
          end
          @pending.failed = true
          return result
        end
      end

      def done
        pending, @pending = @pending, nil
        @kept_error = nil
        @sender.sent(pending.due) if pending.due
        pending.failed ? @sender.failed(pending.statement) : @sender.ran(pending.statement)
        nil
      end

      def keep_error(result)
        return false unless error?(result)

        @kept_error = result
        true
      end

      def error?(result)
        [::PG::PGRES_FATAL_ERROR, ::PG::PGRES_BAD_RESPONSE].include?(result.result_status)
      end

      # Reads all results of a COPY, and ends the transaction block around it.
      def keep_results
        results = []
        while (result = next_result)
          results << result
        end
        @results = results << nil
      end

      def take_kept
        result = @results.shift
        @results = nil if @results.empty?
        result
      end
    end
  end
end
