# frozen_string_literal: true

require "bemi/request"

module Bemi
  # Requests of Rack applications (Sinatra, Roda, Hanami, Rails) have their context.
  module Rack
    # Sets the context of each request: `endpoint`, `method`, `request_id`, `trace_id` and
    # `user_id`, each where it is known. Says nothing to the database: that is an integration's.
    #
    #     use Bemi::Rack::Middleware
    #
    # `context`: a function that is given the request's environment and returns more values, which
    # win; values that are known later are functions. `trust`: which members of the caller's context
    # are taken over, by name, or all with true. See `Bemi.outgoing_headers`.
    class Middleware
      # Where a framework that is inside finds what was set.
      ENVIRONMENT = "bemi.context"

      def initialize(app, context: nil, trust: Request::TRUSTED)
        Request.check_options(context, trust)
        @app = app
        @context = context
        @trust = trust
      end

      def call(env)
        values = Current.made_of(values_of(env), {})
        env[ENVIRONMENT] = values
        Bemi.with_context(values) do
          status, headers, body = @app.call(env)
          # What a streamed body writes, it writes later.
          body = Body.new(body, Current.peek) unless body.is_a?(Array)
          [status, headers, body]
        end
      end

      private

      def values_of(env)
        path = "#{env["SCRIPT_NAME"]}#{env["PATH_INFO"]}" # which what is mounted alters
        customised = @context && -> { @context.call(env) }
        Request.values_of(
          ->(name) { header(env, name) },
          trust: @trust, method: env["REQUEST_METHOD"], customised: customised,
          endpoint: -> { route(env) || path },
          user: -> { user(env) }
        )
      end

      def header(env, name)
        env["HTTP_#{name.upcase.tr("-", "_")}"]
      end

      # The template of the route, where a framework tells it: Sinatra's has the method before it.
      def route(env)
        env["sinatra.route"]&.split(" ", 2)&.last
      end

      def user(env)
        remote = env["REMOTE_USER"] # "" for nobody, of some servers
        ["", nil].include?(remote) ? warden_user(env) : remote
      end

      def warden_user(env)
        Request.quietly { env["warden"]&.user }
      end
    end

    # A body of a response whose parts are made in the context of its request.
    class Body
      def initialize(body, context)
        @body = body
        @context = context
      end

      def each(&block)
        Current.replaced_by(@context) { @body.each(&block) }
      end

      def call(...)
        Current.replaced_by(@context) { @body.call(...) }
      end

      def close
        Current.replaced_by(@context) { @body.close } if @body.respond_to?(:close)
      end

      def respond_to?(name, include_all = false)
        # `each` or `call`, and whether it is a file or an array, is the body's to say.
        name.to_sym == :close || @body.respond_to?(name, include_all)
      end

      def method_missing(...)
        @body.public_send(...)
      end

      def respond_to_missing?(name, include_all = false)
        @body.respond_to?(name, include_all)
      end
    end
    private_constant :Body
  end
end
