# frozen_string_literal: true

require "rails/railtie"
require "bemi/active_job"
require "bemi/rack"

module Bemi
  # Rails applications send the context of their requests and jobs: what it takes is
  # `gem "bemi", require: "bemi/rails"`.
  module Rails
    # Rails' own id of a request, which its log has, is the context's.
    class Middleware < Rack::Middleware
      private

      def header(env, name)
        (env["action_dispatch.request_id"] if name == Tracing::REQUEST_ID) || super
      end
    end

    # Requests that reach a controller have its name and action as their `endpoint`, and its
    # `current_user`, where it has one, as their `user_id`.
    module Controller
      private

      # Around all of an action, what rescues its errors too. A body that is made piece by piece is
      # made later, so what is current at the action's end is so up to that of its request.
      def process_action(*)
        at_end = nil
        outside = Current.peek[:endpoint] # the request's own, where this is in no other action
        in_request = outside && outside.equal?(request.env.dig(Middleware::ENVIRONMENT, :endpoint))
        # An action that streams runs in a thread of its own.
        Current.replaced_by(bemi_request) do
          Bemi.with_context(bemi_values) do
            super
          ensure
            at_end = Current.peek
          end
        end
      ensure
        Current.swap(at_end) if in_request && at_end
      end

      def bemi_request
        Current.peek.empty? ? request.env.fetch(Middleware::ENVIRONMENT, {}) : Current.peek
      end

      def bemi_values
        earlier = Current.peek[:user_id]
        user = -> { Request.key_of(Request.quietly { bemi_user }) || Request.resolved(earlier) }
        { endpoint: "#{controller_path}##{action_name}", user_id: Lazy.new(user, settles: false) }
          .merge(Request.customised(bemi_customised))
      end

      def bemi_user
        current_user if respond_to?(:current_user, true)
      end

      def bemi_customised
        context = ::Rails.application.config.bemi.context
        context && -> { context.call(self) }
      end
    end

    # Installs all of it. Options are those of `Bemi::Sender`, and of `Bemi::Rack::Middleware`, but
    # that `context` is given the controller:
    #
    #     config.bemi.functions = ["close_month"]
    #     config.bemi.context = ->(controller) { { tenant: controller.request.subdomain } }
    class Railtie < ::Rails::Railtie
      SENDING = %i[functions check_at_commit sql redact].freeze
      OPTIONS = [*SENDING, :context, :trust].freeze
      private_constant :SENDING, :OPTIONS

      config.bemi = ::ActiveSupport::OrderedOptions.new

      initializer "bemi.options" do |app|
        unknown = app.config.bemi.keys - OPTIONS
        unless unknown.empty?
          raise ArgumentError, "config.bemi has no #{unknown.min}; there are #{OPTIONS.join(", ")}"
        end
        Request.check_options(app.config.bemi.context, app.config.bemi.fetch(:trust, true))
      end

      initializer "bemi.active_record", before: "active_record.initialize_database" do |app|
        options = app.config.bemi.slice(*SENDING)
        ::ActiveSupport.on_load(:active_record) do
          require "bemi/active_record"
          Bemi::ActiveRecord.install(**options)
        end
      end

      initializer "bemi.middleware" do |app|
        options = app.config.bemi.slice(:trust)
        app.middleware.insert_after(::ActionDispatch::RequestId, Middleware, **options)
      end

      initializer "bemi.controllers" do
        ::ActiveSupport.on_load(:action_controller) { include Controller }
      end

      initializer "bemi.active_job" do
        ::ActiveSupport.on_load(:active_job) { include Bemi::ActiveJob }
      end
    end
  end
end
