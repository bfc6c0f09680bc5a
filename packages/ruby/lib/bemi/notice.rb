# frozen_string_literal: true

module Bemi
  # What an application is told of contexts that can't be sent: once, and without harm.
  module Notice
    @told = []

    class << self
      # What was said already, in this process.
      attr_accessor :told

      # Applications have many connections: the first one says it. No write may fail because of it,
      # also where `Warning.warn` raises.
      def warn_once(message)
        return if @told.include?(message)

        @told += [message]
        begin
          Kernel.warn("bemi: #{message}")
        rescue StandardError
          $stderr.puts("bemi: #{message}")
        end
      end
    end
  end
end
