# frozen_string_literal: true

require "bemi/active_record"
require "support/database"

RSpec.describe Bemi::ActiveRecord do
  include_context "with a database"

  let(:ann) { { "user_id" => "ann" } }

  let(:todo) do
    stub_const("Todo", Class.new(ActiveRecord::Base) { self.table_name = "todo" })
  end

  before do
    described_class.install
    ActiveRecord::Base.establish_connection(Database::URL)
    todo.reset_column_information
    Bemi.set_context(user_id: "ann")
  end

  after { ActiveRecord::Base.remove_connection }

  it "refuses options that there are not, at once" do
    expect { described_class.install(functons: []) }.to raise_error(ArgumentError, /functons/)
  end

  it "sends it once with what models write" do
    made = todo.create!(task: "a")
    made.update!(n: 1)
    todo.insert_all([{ task: "b" }, { task: "c" }])
    todo.where(task: "b").update_all(n: 2)
    todo.where(task: "c").delete_all
    made.destroy!
    todo.find_by(task: "b")
    expect(database.seen).to eq(
      [[ann, "insert"], [ann, "update"], [ann, "insert", "insert"], [ann, "update"], [ann, "delete"],
       [ann, "delete"]]
    )
  end

  it "sends it once in a transaction, and again when an inner one took it along" do
    todo.transaction do
      todo.transaction(requires_new: true) do
        todo.create!(task: "lost")
        raise ActiveRecord::Rollback
      end
      2.times { todo.create!(task: "a") }
    end
    expect(database.seen).to eq([[ann, "insert", "insert"]])
  end

  it "records statements up to their first value" do
    described_class.install(sql: true)
    ActiveRecord::Base.establish_connection(Database::URL)
    todo.create!(task: "secret")
    todo.insert_all([{ task: "secret" }])
    expect(database.seen.map { |(context, _)| context["SQL"] }).to eq(
      ['INSERT INTO "todo" ("task") VALUES ($1) RETURNING "id"', 'INSERT INTO "todo" ("task") VALUES (…']
    )
  end

  it "prepares a statement anew when its table was altered" do
    connection = ActiveRecord::Base.connection
    write = lambda do |task|
      bind = ActiveRecord::Relation::QueryAttribute.new("task", task, ActiveRecord::Type::String.new)
      connection.exec_query("insert into todo (task) values ($1) returning *", "SQL", [bind], prepare: true)
    end
    write.call("a")
    database.connection.exec("alter table todo add column more int")
    write.call("b")
    expect(database.attributed).to eq([[ann, "a"], [ann, "b"]])
  ensure
    database.connection.exec("alter table todo drop column if exists more")
  end

  it "goes on when a connection was made anew, or reset" do
    connection = ActiveRecord::Base.connection
    todo.create!(task: "a")
    connection.reconnect!
    todo.create!(task: "b")
    connection.reset!
    todo.create!(task: "c")
    database.connection.exec(
      "select pg_terminate_backend(#{connection.select_value("select pg_backend_pid()")}, 20000)"
    )
    expect { todo.create!(task: "lost") }.to raise_error(ActiveRecord::StatementInvalid)
    connection.verify!
    todo.create!(task: "d")
    expect(database.attributed).to eq([[ann, "a"], [ann, "b"], [ann, "c"], [ann, "d"]])
  end

  it "sends nothing through connections that are made once it is uninstalled" do
    described_class.uninstall
    ActiveRecord::Base.establish_connection(Database::URL)
    todo.create!(task: "a")
    expect(database.seen).to eq([["insert"]])
  end
end
