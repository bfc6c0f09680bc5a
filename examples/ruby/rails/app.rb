# frozen_string_literal: true

# A todo list on Rails, all in one file: requests, and a job that one of them asks for. Its Gemfile
# would say `gem "bemi", require: "bemi/rails"`.
#
#     ruby app.rb tables
#     ruby app.rb

require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "active_job/railtie"
require "rack/mock"
require "bemi/rails"

class TodoList < Rails::Application
  config.load_defaults 6.1
  config.root = __dir__
  config.eager_load = false
  config.secret_key_base = "an example"
  config.logger = Logger.new(File::NULL)
  config.hosts.clear
  config.active_job.queue_adapter = :async
  # Values of your own, in the context of each request.
  config.bemi.context = ->(controller) { { tenant: controller.request.host } }
end

TodoList.initialize!

if ARGV == ["tables"]
  ActiveRecord::Base.connection.create_table(:todos) do |table|
    table.string :task
    table.boolean :done, default: false
  end
  exit
end

class Todo < ActiveRecord::Base
end

class TidyJob < ActiveJob::Base
  def perform
    Todo.where(done: true).destroy_all
  end
end

class TodosController < ActionController::API
  def create
    Todo.create!(task: params[:task])
    head :created
  end

  def complete
    Todo.find(params[:id]).update!(done: true)
    TidyJob.perform_later
    head :ok
  end

  private

  # What an application that signs people in has.
  def current_user
    request.headers["X-User"]
  end
end

Rails.application.routes.draw do
  post "/todos", to: "todos#create"
  post "/todos/:id/complete", to: "todos#complete"
end

# What a server would call it with.
browser = Rack::MockRequest.new(Rails.application)
browser.post("/todos?task=Buy+milk", "HTTP_X_USER" => "ada", "HTTP_X_REQUEST_ID" => "req-1")
browser.post("/todos/1/complete", "HTTP_X_USER" => "bob")
sleep 0.05 while Todo.exists?(done: true) # until the job is done
