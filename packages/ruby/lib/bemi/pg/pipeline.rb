# frozen_string_literal: true

require "bemi/pg/driver"

module Bemi
  module PG
    # A pipeline that the application has entered itself: messages are put before its writes, and
    # their results are kept from it.
    #
    # What is open there is not known before its results are read. So each part up to a Sync gets its
    # own message, which is one too many inside of a transaction block, and harms nothing.
    class Pipeline
      def initialize(driver, sender)
        @driver = driver
        @sender = sender
        @coming = []
        @error = nil
      end

      # Sends what is due before a statement; `again`: how to prepare that once more.
      def before(statement, sql, again = nil)
        due = @sender.due(statement, in_transaction: true, text: sql)
        return unless due
        return tell unless @sender.allowed

        @driver.send_message(due)
        @coming << :ours
        @sender.sent(due)
        return unless again

        @driver.call(:send_prepare, *again)
        @coming << :ours
      end

      def sent_theirs(statement = nil)
        @coming << :theirs
        @sender.ran(statement) if statement
      end

      def synced
        @coming << :sync
        @sender.unsure
      end

      # What ruby-pg's get_result would give, had nothing been sent besides.
      def next
        loop do
          result = @driver.call(:get_result)
          case @coming.first
          when :ours then skip(result)
          when :sync then return at_sync(result)
          else return theirs(result)
          end
        end
      end

      # Reads the message's results, if they come next.
      def skip_message
        skip(@driver.call(:get_result)) while @coming.first == :ours
      end

      private

      def tell
        Notice.warn_once("what is written in a pipeline after its role was changed there is without " \
                         "a context, since nothing can be asked in a pipeline")
      end

      def skip(result)
        return @coming.shift unless result

        @error ||= result if Driver.error?(result)
      end

      def theirs(result)
        @coming.shift unless result
        return result unless result && Driver.error?(result)

        @sender.unsure
        # Of a message that failed, its error is what the statement has to tell.
        error, @error = @error, nil
        error || result
      end

      def at_sync(result)
        @coming.shift if Driver.sync?(result)
        result
      end
    end
  end
end
