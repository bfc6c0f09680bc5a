# frozen_string_literal: true

# A small application of Rails, all in one file, for `tests/clients/test_ruby_rails.py`: serves HTTP
# on a free port, which it says, until its input ends.
#
#     ruby rails_app.rb serve|sidekiq

$LOAD_PATH.unshift(File.expand_path("../../../packages/ruby/lib", __dir__))
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "active_job/railtie"
require "bemi/rails"

# What is configured.
class Shop < Rails::Application
  config.load_defaults 6.1
  config.root = __dir__
  config.eager_load = false
  config.consider_all_requests_local = true
  config.secret_key_base = "shop"
  config.hosts.clear
  config.logger = Logger.new(File::NULL)
  config.active_job.queue_adapter = ENV.key?("REDIS_URL") ? :sidekiq : :async
  config.bemi.context = ->(controller) { { shop: controller.params[:shop] }.compact }
end

if ENV.key?("REDIS_URL")
  require "sidekiq"
  require "bemi/sidekiq"
  Bemi::Sidekiq.install
  Sidekiq.configure_server { |config| config.options[:poll_interval_average] = 0.2 }
end

ENV["DATABASE_URL"] += "?pool=5"
Shop.initialize!

# A row of the table that is changed.
class Todo < ActiveRecord::Base
  self.table_name = "todo"
  include Bemi::RecordQueryHelpers
end

# Writes later, tries again once, and asks for another one.
class TellJob < ActiveJob::Base
  class Busy < StandardError; end
  retry_on Busy, wait: 0, attempts: 2

  def perform(task, again)
    raise Busy if again && executions == 1

    Todo.create!(task: task)
    TellJob.perform_later("#{task} too", false) if again
  end
end

if ENV.key?("REDIS_URL")
  # Sidekiq's own kind.
  class CountJob
    include Sidekiq::Worker
    def perform(task)
      Todo.create!(task: task)
    end
  end
end

# Who asks; found out by a query.
class ApplicationController < ActionController::Base
  private

  def current_user
    return unless (name = request.headers["X-User"])

    @current_user ||= { id: Todo.connection.select_value("select #{Todo.connection.quote(name)}") }
  end
end

# Requests.
class TodosController < ApplicationController
  skip_forgery_protection raise: false
  rescue_from(KeyError) do
    Todo.create!(task: "rescued")
    head :ok
  end

  def create
    Todo.find_by(task: "nobody") if params[:n].to_i.odd?
    Todo.create!(task: params[:task])
    head :created
  end

  def refuse
    Todo.create!(task: params[:task])
    raise "no"
  end

  def rescued
    raise KeyError
  end

  def late
    task = params[:task]
    Bemi.merge_context(plan: "pro")
    self.response_body = Enumerator.new { |body| body << Todo.create!(task: task).task }
  end

  def later
    TellJob.perform_later(params[:task], true)
    CountJob.perform_async("#{params[:task]} counted") if defined?(CountJob)
    head :ok
  end
end

# Actions that run in a thread of their own.
class StreamsController < ApplicationController
  include ActionController::Live
  skip_forgery_protection raise: false

  def create
    response.stream.write("a")
    Todo.create!(task: params[:task])
    response.stream.write("b")
  ensure
    response.stream.close
  end
end

Rails.application.routes.draw do
  %w[create refuse rescued late later].each { |name| post "/#{name}", to: "todos##{name}" }
  post "/stream", to: "streams#create"
  mount ->(env) { [200, {}, [Todo.create!(task: "rack").task]] }, at: "/rack"
end

def serve
  require "webrick"
  server = WEBrick::HTTPServer.new(
    Port: 0, BindAddress: "127.0.0.1", AccessLog: [], Logger: WEBrick::Log.new(File::NULL)
  )
  server.mount("/", Rack::Handler::WEBrick, Rails.application)
  puts server.config[:Port]
  $stdout.flush
  Thread.new { server.start }
  $stdin.read
  server.shutdown
end

serve if $PROGRAM_NAME == __FILE__
