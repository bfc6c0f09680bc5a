# frozen_string_literal: true

module Bemi
  module PG
    # A pipeline that the application has entered itself: messages are put before its writes, and
    # their results are kept from it.
    #
    # What is open there is not known before its results are read. So each part up to a Sync gets its
    # own message, which is one too many inside of a transaction block, and harms nothing.
    class Pipeline
      def initialize(sender, raw)
        @sender = sender
        @raw = raw
        @coming = []
        @failure = nil
      end

      def send_message(due)
        @raw.call(:send_query_params, due.statement, [due.content], 0, ::PG::TypeMapAllStrings.new)
        @coming << :ours
        @sender.sent(due)
      end

      def sent_theirs(statement = nil)
        @coming << :theirs
        @sender.ran(statement) if statement
      end

      def synced
        @coming << :sync
        @sender.unsure
      end

      def next_result
        loop do
          result = @raw.call(:get_result)
          case @coming.first
          when :ours then keep(result)
          when :sync then return ended(result)
          else return theirs(result)
          end
        end
      end

      private

      def keep(result)
        return @coming.shift unless result

        @failure = result if result.result_status == ::PG::PGRES_FATAL_ERROR
      end

      def theirs(result)
        @coming.shift unless result
        return result unless result && failed?(result)

        @sender.unsure
        failure, @failure = @failure, nil
        failure || result
      end

      def failed?(result)
        [::PG::PGRES_FATAL_ERROR, ::PG::PGRES_PIPELINE_ABORTED].include?(result.result_status)
      end

      def ended(result)
        @coming.shift if result&.result_status == ::PG::PGRES_PIPELINE_SYNC
        result
      end
    end
  end
end
