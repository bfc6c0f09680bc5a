# frozen_string_literal: true

require "monitor"

module Bemi
  # A function that is called once, when its value is first wanted, by whichever thread.
  # `settles`: nil is an answer too; otherwise it is asked again.
  class Lazy
    def initialize(function, settles: true)
      @function = function
      @settles = settles
      @lock = Monitor.new
      @known = @asked = false
    end

    # Raises what the function raises, and RuntimeError where it needs the value itself.
    def call
      return @value if @known

      @lock.synchronize do
        raise "a value of the context is found out by writing with it" if @asked

        ask unless @known
        @value
      end
    end

    private

    def ask
      @asked = true
      @value = @function.call
      @known = @settles || !@value.nil?
    ensure
      @asked = false
    end
  end
end
