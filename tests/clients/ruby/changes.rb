# frozen_string_literal: true

# What an application writes through Active Record, and then asks of its history, for
# `tests/clients/test_ruby_changes.py`.
#
#     ruby changes.rb write|read

$LOAD_PATH.unshift(File.expand_path("../../../packages/ruby/lib", __dir__))
require "json"
require "bemi/active_record"

Bemi::ActiveRecord.install
ActiveRecord::Base.establish_connection(ENV.fetch("SOURCE_URL"))
ActiveRecord.default_timezone = :utc if ActiveRecord.respond_to?(:default_timezone=)

class Todo < ActiveRecord::Base
  self.table_name = "todo"
  include Bemi::RecordQueryHelpers
end

class Price < ActiveRecord::Base
  self.table_name = "shop.price"
  self.primary_key = "amount"
  include Bemi::RecordQueryHelpers
end

class Moment < ActiveRecord::Base
  self.table_name = "moment"
  self.primary_key = "at"
  include Bemi::RecordQueryHelpers
end

class Blob < ActiveRecord::Base
  self.table_name = "blob"
  self.primary_key = "raw"
  include Bemi::RecordQueryHelpers
end

def write
  first = second = third = nil
  Bemi.with_context(user_id: "ann", tags: %w[a b]) do
    first, second, third = %w[a b c].map { |task| Todo.create!(task: task, done: false) }
    Price.create!(amount: BigDecimal("1.5"))
    Moment.create!(at: Time.utc(2026, 1, 2, 3, 4, 5.25r))
    Blob.create!(raw: "\x00\xff".b)
  end
  Bemi.with_context(user_id: 7) { first.update!(done: true) }
  second.destroy!
  Bemi.with_context(user_id: "ann") { Todo.where(id: third.id).update_all(id: 30) }
end

def read
  Bemi::Change.establish_connection(ENV.fetch("HISTORY_URL"))
  keys = ->(found) { found.where(table: "todo").asc.map(&:primary_key) }
  all = Bemi::Change
  puts JSON.generate(
    created: keys[all.created], updated: keys[all.updated], deleted: keys[all.deleted],
    after: keys[all.before(done: false).after(done: true)], after_named: keys[all.after("task" => "c")],
    after_not: keys[all.created.after_not(task: "a")], before_not: keys[all.before_not(done: false)],
    context: keys[all.context(user_id: "ann")], context_within: keys[all.context(tags: ["b"])],
    context_not: keys[all.context_not(user_id: "ann")],
    fields: %i[done id task].map { |name| keys[all.field_changed(name)] },
    hostile: ["'", "\"", "\\", "?", ":name", "%s"].map do |text|
      [all.context(text => text).count, all.field_changed(text).count, all.after(text => text).count]
    end,
    desc: all.where(table: "todo").desc.map(&:operation),
    diffs: all.where(table: "todo").asc.map(&:diff),
    of: Todo.order(:id).map { |todo| todo.bemi_changes.map(&:operation) },
    of_updates: Todo.find(1).bemi_changes.updated.map(&:context),
    keys: [Price, Moment, Blob].map { |model| model.first.bemi_changes.map(&:primary_key) },
    refused: [-> { Todo.new.bemi_changes }, -> { all.first.update!(operation: "x") }, -> { all.first.destroy }]
      .map do |asks|
        asks.call && nil
      rescue StandardError => e
        e.class.name
      end
  )
end

send(ARGV.fetch(0))
