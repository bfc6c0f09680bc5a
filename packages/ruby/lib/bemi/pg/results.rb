# frozen_string_literal: true

require "bemi/pg/driver"

module Bemi
  module PG
    # What comes back over one connection: the results that the application is to see, without those
    # of what was sent besides.
    class Results
      # A statement whose results were not all read. `stage`: of a pipeline of ours, whether its
      # message's results come next, the statement's or the Sync's, or of the one that begins a
      # transaction block. `before`: how many results are the message's. `commit`: such a block has
      # to be ended.
      Pending = Struct.new(
        :statement, :due, :stage, :before, :commit, :failed, :error, keyword_init: true
      )
      private_constant :Pending

      # What ruby-pg would have to say of the last statement's failure, which it forgets with what we
      # send or read behind that.
      attr_accessor :told

      def initialize(driver, sender)
        @driver = driver
        @sender = sender
        forget
      end

      # Results of a statement are to come.
      def expect(statement, **more)
        @pending = Pending.new(statement: statement, **more)
      end

      # None are, since it is another session.
      def forget
        @pending = @kept = @told = nil
      end

      # Whether results have to be read through here.
      def waiting?
        !(@pending || @kept).nil?
      end

      # What ruby-pg's get_result would give, had nothing been sent besides.
      def next
        return take_kept if @kept
        return @driver.call(:get_result) unless @pending

        case @pending.stage
        when nil then plain
        when :message then skip_message && statement
        when :statement then statement
        else sync
        end
      end

      # The last of the results; raises what it tells of.
      def last
        last = nil
        while (result = self.next)
          last&.clear
          last = result
          break if Driver.copy?(result)
        end
        last&.check
        last
      end

      # Reads the message's results, if they come next.
      def skip_message
        return true unless @pending&.stage == :message

        message(@driver.call(:get_result)) while @pending.stage == :message
        true
      end

      # Whether a result is still on its way, which `yield` knows of ruby-pg. The message's are read
      # when they are here, so that who asks never waits for the statement's.
      def busy?
        until (busy = yield) || @pending&.stage != :message
          message(@driver.call(:get_result))
        end
        busy
      end

      # Reads what the application has left unread, as ruby-pg does before a statement; also where a
      # Timeout has left things in the midst.
      def settle
        @kept = nil
        return unless @pending
        return forget if @driver.lost?

        @pending.stage ? leave : read_rest
        @kept = nil
      rescue ::PG::Error, SystemCallError, IOError
        forget # the connection is no more, which the next statement says in its own way
      end

      # A Sync more does no harm, and one is needed where none was sent.
      def sync_once_more
        @driver.call(:pipeline_sync) if !@driver.lost? && @driver.pipeline?
      end

      # A transaction block was begun around the statement.
      def begun
        @pending.stage = nil
      end

      # Reads all results of a COPY that has a transaction block around it, and ends that: the server
      # has all that it needs, whoever reads what came of it.
      def copied
        return unless @pending&.commit

        results = []
        while (result = self.next)
          results << result
        end
        @kept = results << nil
      end

      # The end of a transaction block around a statement; what came of it, when it failed. What has
      # failed on the server is rolled back by COMMIT, too.
      def end_block
        return unless @pending&.commit
        return forget if @driver.lost?

        @driver.call(:discard_results)
        failure = commit if @driver.open?
        # Not before: who is interrupted meanwhile comes here again.
        pending, @pending = @pending, nil
        @sender.ended
        @sender.ran(pending.statement) unless failure
        @told = failure.error_message if failure
        @kept = [nil] if failure
        failure
      end

      private

      def read_rest
        while (result = self.next)
          @driver.call(:discard_results) if Driver.copy?(result)
          result.clear
        end
      end

      # Leaves a pipeline of ours, wherever it was left.
      def leave
        if @driver.pipeline?
          @driver.call(:pipeline_sync)
          @driver.call(:get_result)&.clear until left?
        end
        return end_block if @pending.commit

        @pending.failed = true
        done
      end

      # One of the results that are the message's.
      def message(result)
        if result
          @pending.error ||= result if Driver.error?(result)
        elsif (@pending.before -= 1).zero?
          @pending.stage = :statement
        end
      end

      def left?
        @driver.call(:exit_pipeline_mode)
        true
      rescue ::PG::Error
        raise if @driver.lost?

        false
      end

      def commit
        @driver.call(:send_query, "commit")
        failure = nil
        while (result = @driver.call(:get_result))
          failure = result if Driver.error?(result)
        end
        failure
      end

      def plain
        result = @driver.call(:get_result)
        failed(result) if result && Driver.error?(result)
        result || (@pending.commit ? end_block : done)
      end

      def statement
        result = @driver.call(:get_result)
        if result.nil?
          @pending.stage = :sync
          return sync
        end
        # Of a message that failed, its error is what the statement has to tell.
        error, @pending.error = @pending.error, nil
        failed(error || result) if Driver.error?(result)
        error || result
      end

      # A Sync commits, which may fail, too.
      def sync
        loop do
          result = @driver.call(:get_result)
          return done if result.nil? && @driver.lost?
          next if result.nil?

          if Driver.sync?(result)
            @driver.call(:exit_pipeline_mode)
            return done
          end
          failed(result)
          return result
        end
      end

      def failed(result)
        @pending.failed = true
        @told = result.error_message
      end

      def done
        pending, @pending = @pending, nil
        @sender.sent(pending.due) if pending.due
        pending.failed ? @sender.failed(pending.statement) : @sender.ran(pending.statement)
        nil
      end

      def take_kept
        result = @kept.shift
        @kept = nil if @kept.empty?
        result
      end
    end
  end
end
