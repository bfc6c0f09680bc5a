# frozen_string_literal: true

# A todo list that a worker of Sidekiq writes: for whom, and in which job, is in each change.
#
#     ruby app.rb tables
#     ruby app.rb
#
# Needs the program redis-server, which it starts for itself.

require "tmpdir"
require "bemi/active_record"
require "bemi/sidekiq"

Bemi::Sidekiq.install
Bemi::ActiveRecord.install
ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))

class Todo < ActiveRecord::Base
end

class AddJob
  include Sidekiq::Worker

  def perform(task)
    Todo.create!(task: task)
  end
end

class CompleteJob
  include Sidekiq::Worker

  def perform(task)
    Todo.find_by!(task: task).update!(done: true)
  end
end

# On a socket in a folder of its own, so that no port is taken.
def with_redis
  Dir.mktmpdir do |folder|
    socket = File.join(folder, "redis.sock")
    options = %W[--port 0 --unixsocket #{socket} --save #{""}]
    redis = spawn("redis-server", *options, chdir: folder, out: File::NULL)
    sleep 0.05 until File.socket?(socket)
    yield "unix://#{socket}"
  ensure
    Process.kill(:TERM, redis)
    Process.wait(redis)
  end
end

# The program `sidekiq`, with this file.
def with_worker(url)
  command = ["sidekiq", "--require", File.expand_path(__FILE__), "--concurrency", "2"]
  worker = spawn({ "REDIS_URL" => url }, *command, out: File::NULL)
  yield
ensure
  Process.kill(:TERM, worker)
  Process.wait(worker)
end

if $PROGRAM_NAME == __FILE__
  if ARGV == ["tables"]
    ActiveRecord::Base.connection.create_table(:todos) do |table|
      table.string :task
      table.boolean :done, default: false
    end
    exit
  end

  with_redis do |url|
    ENV["REDIS_URL"] = url
    with_worker(url) do
      Bemi.with_context(user_id: "ada", endpoint: "todos#create") do
        AddJob.perform_async("Buy milk")
      end
      sleep 0.05 until Todo.exists?
      Bemi.with_context(user_id: "bob", endpoint: "todos#complete") do
        CompleteJob.perform_async("Buy milk")
      end
      sleep 0.05 until Todo.exists?(done: true)
    end
  end
end
