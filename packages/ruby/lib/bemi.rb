# frozen_string_literal: true

# The context that an application attaches to what it changes. Needs Ruby's standard library only;
# what sends it is one of `bemi/pg`, `bemi/active_record`, `bemi/rails` and `bemi/sequel`.

require "bemi/version"
require "bemi/current"
require "bemi/tracing"

# The context of what is done here and now, and what goes along to other services.
module Bemi
  # Something that Bemi can't do, and what to do about it.
  class Error < StandardError; end

  # The history, mapped; these need Active Record.
  autoload :Change, "bemi/change"
  autoload :ChangeQueryHelpers, "bemi/change"
  autoload :RecordQueryHelpers, "bemi/change"

  class << self
    # Adds values to the current context for a block, and returns what the block returns; inner ones
    # win over outer ones.
    #
    #     Bemi.with_context(user_id: 42, endpoint: "todos#complete") { … }
    #
    # A Proc stands for what it returns: it is called when the context is first sent, once, and not
    # at all where nothing is written. Where it returns nil there is no such value.
    def with_context(values = nil, **more)
      before = Current.peek
      merge_context(values, **more)
      yield
    ensure
      Current.swap(before)
    end

    # Replaces the whole current context.
    def set_context(values = nil, **more)
      Current.swap(Current.made_of(values, more))
      nil
    end

    # Adds values to the current context; a name that is there already gets the new value.
    def merge_context(values = nil, **more)
      Current.swap(Current.peek.merge(Current.made_of(values, more)).freeze)
      nil
    end

    # Empties the current context.
    def clear_context
      Current.swap(Current::EMPTY)
      nil
    end

    # A copy of the current context, its names as symbols; empty when there is none.
    def current_context
      Current.peek.dup
    end

    # Headers for a request to another service of yours, so that one request is seen across them:
    # `X-Request-ID`, `traceparent` and `bemi-context`, each where there is something to say.
    # `context: false` leaves out the last one: for services that are not yours.
    def outgoing_headers(context: true)
      Tracing.outgoing_headers(context: context)
    end
  end
end
