# frozen_string_literal: true

require "json"
require "securerandom"
require "bemi/current"
require "bemi/wire"

module Bemi
  # The context on its way between services and into jobs: what goes into headers and comes out.
  #
  # The names and forms are those of `spec/context.md`. What comes in with a request is somebody's
  # input: nothing here trusts it, it is parsed strictly or not at all.
  module Tracing
    REQUEST_ID = "X-Request-ID"
    TRACEPARENT = "traceparent"
    CONTEXT = "bemi-context"

    # Servers take 8 kB for all headers of a request, or for each.
    REQUEST_LIMIT = 4 << 10
    # What all languages' jobs keep to.
    JOB_LIMIT = 64 << 10
    MAX_REQUEST_ID = 128
    NOT_IN_REQUEST_IDS = %r{[^A-Za-z0-9._~:/+=@-]+}.freeze
    TRACEPARENT_FORM = /\A(?<version>[0-9a-f]{2})-(?<trace>[0-9a-f]{32})-(?<parent>[0-9a-f]{16})
      -[0-9a-f]{2}(?<more>-[!-~]*)?\z/x.freeze
    private_constant :REQUEST_LIMIT, :JOB_LIMIT, :MAX_REQUEST_ID, :NOT_IN_REQUEST_IDS,
                     :TRACEPARENT_FORM

    # A trace's id that knows the `traceparent` it came with, to be passed on as it is.
    class TraceId < String
      attr_reader :traceparent

      def initialize(trace, traceparent)
        super(trace)
        @traceparent = traceparent
        freeze
      end
    end

    class << self
      def outgoing_headers(context: true)
        now = Current.peek
        request_id = read_request_id(known(now[:request_id]))
        traceparent = traceparent_of(known(now[:trace_id]))
        headers = {}
        headers[REQUEST_ID] = request_id if request_id
        headers[TRACEPARENT] = traceparent if traceparent
        headers[CONTEXT] = Wire.encode(now, limit: REQUEST_LIMIT) if context && !now.empty?
        headers
      end

      # The same for a job; empty where there is no context.
      def job_headers
        now = Current.peek
        return {} if now.empty?

        headers = { CONTEXT => Wire.encode(now, limit: JOB_LIMIT) }
        traceparent = traceparent_of(known(now[:trace_id]))
        headers[TRACEPARENT] = traceparent if traceparent
        headers
      end

      # The context of a job that came with these headers, if any; `more` is laid over it.
      def job_context(headers, **more)
        headers = {} unless headers.is_a?(Hash)
        values = read_context(headers[CONTEXT])
        trace = read_traceparent(headers[TRACEPARENT])
        values["trace_id"] = trace if trace && values["trace_id"] == trace
        values.merge(more.compact.transform_keys(&:to_s))
      end

      # What a `bemi-context` says; empty when it can't be read.
      def read_context(header)
        return {} unless header.is_a?(String)

        values = JSON.parse(header, create_additions: false)
        values.is_a?(Hash) ? values : {}
      rescue JSON::ParserError, JSON::NestingError, EncodingError
        {}
      end

      # The trace of a `traceparent`; nil when it is not exactly of its form.
      def read_traceparent(header)
        found = header.is_a?(String) && header.valid_encoding? && TRACEPARENT_FORM.match(header)
        return unless found
        return if found[:version] == "ff" || (found[:version] == "00" && found[:more])
        return if found[:trace].delete("0").empty? || found[:parent].delete("0").empty?

        TraceId.new(found[:trace], header.dup.freeze)
      end

      # A request's id, bounded, and of signs that harm nobody; nil when nothing of it is left.
      def read_request_id(header)
        return unless [String, Symbol, Integer].any? { |kind| header.is_a?(kind) }

        text = header.to_s.scrub("").gsub(NOT_IN_REQUEST_IDS, "")[0, MAX_REQUEST_ID]
        text unless text.empty?
      end

      def new_request_id
        SecureRandom.uuid
      end

      # The trace of the current span of OpenTelemetry, where the application uses that.
      def open_telemetry
        return unless defined?(::OpenTelemetry::Trace)

        span = ::OpenTelemetry::Trace.current_span.context
        flags = span.trace_flags.sampled? ? "01" : "00"
        read_traceparent("00-#{span.hex_trace_id}-#{span.hex_span_id}-#{flags}")
      end

      private

      def traceparent_of(trace_id)
        span = open_telemetry
        return span.traceparent if span
        return trace_id.traceparent if trace_id.is_a?(TraceId)

        # A trace that is known by its id only: who calls is given a name, and recorded nothing.
        read_traceparent("00-#{trace_id}-#{SecureRandom.hex(8)}-00")&.traceparent
      end

      # The value of a member; nil for one that fails, which `Wire` tells of.
      def known(value)
        value.is_a?(Lazy) ? value.call : value
      rescue StandardError, ScriptError, SystemStackError
        nil
      end
    end
  end
end
