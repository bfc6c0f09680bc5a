# frozen_string_literal: true

# A todo list on plain ruby-pg: each request is a user's.
#
#     ruby app.rb tables
#     ruby app.rb

require "bemi/pg"

connection = PG.connect(ENV.fetch("DATABASE_URL"))
if ARGV == ["tables"]
  connection.exec("create table todo (id serial primary key, task text, done bool)")
  exit
end

Bemi::PG.install(connection)

# One request; what it does need not know who asks for it.
def handle(user, method, path, &work)
  Bemi.with_context(user_id: user, method: method, endpoint: path, &work)
end

# A job, which writes many rows at once.
Bemi.with_context(job: "import") do
  connection.copy_data("copy todo (task) from stdin") do
    ["Buy milk", "Sleep"].each { |task| connection.put_copy_data("#{task}\n") }
  end
end

handle(42, "GET", "/todo") { connection.exec("select * from todo") }
handle(7, "PUT", "/todo/1") do
  connection.transaction do
    connection.exec_params("update todo set done = true where id = $1", [1])
    connection.exec_params("insert into todo (task) values ($1)", ["Buy oat milk"])
  end
end
handle(42, "DELETE", "/todo/2") { connection.exec("delete from todo where id = 2") }
