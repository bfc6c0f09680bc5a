# frozen_string_literal: true

require "bemi/lazy"

module Bemi
  # The context that is current here and now: per thread and per fiber. Nothing here talks to a
  # database.
  #
  # A new thread begins with none. So does a new fiber before Ruby 3.2; from there on, which has
  # storage for it, a fiber begins with that of the fiber that made it. Fiber storage goes on into
  # new threads, too, which is what must not be: a pool's thread would keep for ever whose request
  # it was made in. So the thread is kept beside it.
  module Current
    EMPTY = {}.freeze

    KEY = :bemi_context
    private_constant :KEY

    class << self
      # The current context itself: the same frozen Hash as long as it has not changed.
      def peek
        held || EMPTY
      end

      if Fiber.respond_to?(:[])
        # Makes what `peek` once gave the current context; the one before.
        def swap(mapping)
          before = peek
          Fiber[KEY] = [Thread.current.object_id, mapping]
          before
        end

        private def held
          thread, mapping = Fiber[KEY]
          mapping if thread == Thread.current.object_id
        end
      else
        def swap(mapping)
          before = peek
          Thread.current[KEY] = mapping # of the fiber, whatever its name says
          before
        end

        private def held
          Thread.current[KEY]
        end
      end

      # Runs a block with nothing but these values.
      def replaced_by(values)
        before = swap(made_of(values, EMPTY))
        yield
      ensure
        swap(before)
      end

      # A context of its own: names as symbols, functions wrapped, so that all who share the context
      # share their values.
      def made_of(values, more)
        made = {}
        [values || EMPTY, more].each do |each|
          each.each { |name, value| made[name_of(name)] = lazily(value) }
        end
        made.freeze
      end

      private

      def name_of(name)
        return name unless name.is_a?(String)

        name.valid_encoding? ? name.to_sym : name.dup.freeze
      end

      def lazily(value)
        value.is_a?(Proc) || value.is_a?(Method) ? Lazy.new(value) : value
      end
    end
  end
end
