# frozen_string_literal: true

require "bemi"
require "bemi/lazy"
require "bemi/notice"

module Bemi
  # The context of one request to a web application, from what its interface tells of it: how to
  # look up a header, and who, where and how, as functions where that is known later than the
  # request begins.
  module Request
    # What is taken from anybody: ids that tie requests together and grant nothing.
    TRUSTED = %w[request_id trace_id].freeze

    # What is an application's own, whoever calls it.
    OWN = %w[endpoint method].freeze
    # What classes of users call their key; a name that is shown to people comes last.
    KEYS = %i[id user_id sub uid username].freeze
    private_constant :OWN, :KEYS

    class << self
      # Raises ArgumentError for what would fail, or do something else, with each request.
      def check_options(context, trust)
        unless context.nil? || context.respond_to?(:call)
          raise ArgumentError, "context: takes a function, not #{context.inspect}"
        end
        return if [true, false, nil].include?(trust) || trust.respond_to?(:each)

        raise ArgumentError, "trust: takes names, as in trust: [#{trust.inspect}], or true"
      end

      # The context with which a request begins. `header` is called with a header's name;
      # `customised`, if any, gives more values, which win.
      def values_of(header, trust:, endpoint:, method:, user:, customised: nil)
        taken = trusted(header, trust)
        caller_id = taken["user_id"]
        values = {
          "request_id" => Tracing.new_request_id,
          "trace_id" => Tracing.method(:open_telemetry),
          **taken,
          "endpoint" => endpoint,
          # Who it is may not be known yet when something is written first.
          "user_id" => Lazy.new(-> { key_of(quietly(&user)) || caller_id }, settles: false)
        }
        values["method"] = method if method
        values.merge(customised(customised))
      end

      # What a function of the application's gives; nothing where it fails, since a request must not
      # fail because of its context.
      def customised(function)
        (function&.call || {}).to_h.transform_keys(&:to_s)
      rescue StandardError, ScriptError, SystemStackError => e
        Notice.warn_once(
          "the function given as context: failed, its values are missing: #{e.inspect}"
        )
        {}
      end

      # A value that may be found out late.
      def resolved(value)
        value.is_a?(Lazy) ? quietly { value.call } : value
      end

      # What identifies a user, whatever class it is of; nil when that can't be told.
      def key_of(user)
        return user if user.is_a?(Integer) || (user.is_a?(String) && !user.empty?)
        return if [nil, true, false, ""].include?(user)

        KEYS.each do |name|
          key = quietly { user.is_a?(Hash) ? user[name] || user[name.to_s] : user.public_send(name) }
          return key if key.is_a?(Integer) || (key.is_a?(String) && !key.empty?)
        end
        nil
      end

      # What a function of the application's returns; nil where it fails.
      def quietly
        yield
      rescue StandardError, ScriptError, SystemStackError
        nil
      end

      private

      def trusted(header, trust)
        names = trust.respond_to?(:each) ? trust.map(&:to_s) : []
        trusts = ->(name) { trust == true || names.include?(name) }
        carried = trust == true || !(names - TRUSTED).empty? ? header.call(Tracing::CONTEXT) : nil
        taken = Tracing.read_context(carried)
                       .select { |name, _| trusts.call(name) && !OWN.include?(name) }
        found = {
          "request_id" => Tracing.read_request_id(header.call(Tracing::REQUEST_ID)),
          "trace_id" => Tracing.read_traceparent(header.call(Tracing::TRACEPARENT))
        }
        taken.merge(found.select { |name, value| value && trusts.call(name) })
      end
    end
  end
end
