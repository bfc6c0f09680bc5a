# frozen_string_literal: true

# A todo list on Sequel, whose requests come through Rack: who asks, and where, is in each change.
#
#     ruby app.rb tables
#     ruby app.rb

require "bemi/rack"
require "bemi/sequel"

DB = Sequel.connect(ENV.fetch("DATABASE_URL").sub("postgresql:", "postgres:"))
if ARGV == ["tables"]
  DB.create_table(:todo) do
    primary_key :id
    String :task
    TrueClass :done, default: false
  end
  exit
end

Bemi::Sequel.install(DB)

todos = lambda do |env|
  case env["REQUEST_METHOD"]
  when "POST" then DB[:todo].insert(task: env["QUERY_STRING"])
  when "PUT" then DB[:todo].where(id: 1).update(done: true)
  end
  [200, {}, [DB[:todo].count.to_s]]
end
app = Bemi::Rack::Middleware.new(todos, context: ->(env) { { tenant: env["SERVER_NAME"] } })

# What a server would call it with.
[%w[POST ada Buy-milk], ["PUT", "bob", ""], ["GET", "ada", ""]].each do |method, user, query|
  app.call(
    "REQUEST_METHOD" => method, "PATH_INFO" => "/todo", "QUERY_STRING" => query,
    "SERVER_NAME" => "shop.example", "REMOTE_USER" => user
  )
end
