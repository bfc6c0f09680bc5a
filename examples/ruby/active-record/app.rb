# frozen_string_literal: true

# A todo list on Active Record, without Rails: a job writes, and each of its changes says so.
#
#     ruby app.rb tables
#     ruby app.rb

require "bemi/active_record"

Bemi::ActiveRecord.install
ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))

if ARGV == ["tables"]
  ActiveRecord::Base.connection.create_table(:todos) do |table|
    table.string :task
    table.boolean :done, default: false
  end
  exit
end

class Todo < ActiveRecord::Base
end

Bemi.with_context(job: "import", user_id: 42) do
  Todo.insert_all!([{ task: "Buy milk" }, { task: "Sleep" }])
  Todo.create!(task: "Call Ada")
end

Bemi.with_context(user_id: 7, endpoint: "todos#complete") do
  Todo.transaction do
    Todo.find_by!(task: "Buy milk").update!(done: true)
    Bemi.with_context(reason: "cleaning up") { Todo.where(task: "Sleep").delete_all }
  end
end
