# frozen_string_literal: true

require "bemi/sequel"
require "support/database"

RSpec.describe Bemi::Sequel do
  include_context "with a database"

  let(:ann) { { "user_id" => "ann" } }
  let(:db) { Sequel.connect(Database::URL.sub("postgresql:", "postgres:")) }

  before { Bemi.set_context(user_id: "ann") }

  after { db.disconnect }

  it "refuses other databases, and options that there are not" do
    expect { described_class.install(Sequel.mock) }.to raise_error(ArgumentError, /adapter/)
    expect { described_class.install(db, functons: []) }.to raise_error(ArgumentError, /functons/)
  end

  it "sends it with what datasets, models and prepared statements write" do
    described_class.install(db)
    db[:todo].insert(task: "a")
    db[:todo].multi_insert([{ task: "b" }, { task: "c" }])
    db[:todo].where(task: "a").update(n: 1)
    add = db[:todo].prepare(:insert, :add_todo, task: :$task)
    2.times { add.call(task: "d") }
    db[:todo].where(task: :$task).call(:delete, task: "d")
    db.transaction do
      db[:todo].insert(task: "e")
      db.transaction(savepoint: true) do
        db[:todo].insert(task: "lost")
        raise Sequel::Rollback
      end
      db[:todo].insert(task: "f")
    end
    expect(database.seen).to eq(
      [[ann, "insert"], [ann, "insert", "insert"], [ann, "update"], [ann, "insert"], [ann, "insert"],
       [ann, "delete", "delete"], [ann, "insert", "insert"]]
    )
  end

  it "copies in and out" do
    described_class.install(db)
    db.copy_into(:todo, columns: [:task], data: "a\nb\n")
    expect(db.copy_table(db[:todo].select(:task).order(:id))).to eq("a\nb\n")
    expect { db.copy_into(:todo, columns: [:task]) { raise ArgumentError } }.to raise_error(ArgumentError)
    db[:todo].insert(task: "c")
    expect(database.seen).to eq([[ann, "insert", "insert"], [ann, "insert"]])
  end

  it "records statements up to their first value" do
    described_class.install(db, sql: true)
    db[:todo].insert(task: "secret")
    db[:todo].where(id: 1).update(n: 4711)
    db[:todo].where(Sequel.lit("true")).delete
    expect(database.seen.map { |(context, _)| context["SQL"] }).to eq(
      ["INSERT INTO \"todo\" (\"task\") VALUES (…", "UPDATE \"todo\" SET \"n\" = …",
       "DELETE FROM \"todo\" WHERE (…"]
    )
  end
end
