# frozen_string_literal: true

# What sending contexts costs, by library: microseconds of a transaction without Bemi and with it,
# which take turns at every one, and round trips.
#
#     DATABASE_URL=postgresql://… ruby packages/ruby/benchmarks/sending.rb

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "tempfile"
require "bemi/active_record"
require "bemi/sequel"

URL = ENV.fetch("DATABASE_URL")
TURNS = Integer(ENV.fetch("TURNS", "2000"))

# Each with its raw connection, a write in autocommit, and one in a transaction.
Contestant = Struct.new(:raw, :alone, :together)

def with_pg(bemi)
  connection = PG.connect(URL)
  Bemi::PG.install(connection) if bemi
  write = -> { connection.exec_params("insert into cost (task) values ($1)", ["Buy milk"]) }
  Contestant.new(connection, write, -> { connection.transaction { write.call } })
end

def with_active_record(bemi)
  bemi ? Bemi::ActiveRecord.install : Bemi::ActiveRecord.uninstall
  base = Class.new(ActiveRecord::Base) { self.abstract_class = true }
  Object.const_set(bemi ? :With : :Without, base)
  base.establish_connection(URL)
  model = Class.new(base) { self.table_name = "cost" }
  write = -> { model.insert({ task: "Buy milk" }) }
  Contestant.new(base.connection.raw_connection, write, -> { model.create!(task: "Buy milk") })
end

def with_sequel(bemi)
  database = Sequel.connect(URL.sub("postgresql:", "postgres:"))
  Bemi::Sequel.install(database) if bemi
  write = -> { database[:cost].insert(task: "Buy milk") }
  raw = database.synchronize { |connection| connection }
  Contestant.new(raw, write, -> { database.transaction { write.call } })
end

def requested(&work)
  request = "req-#{Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)}"
  Bemi.with_context(user_id: 42, endpoint: "todos#create", method: "POST", request_id: request, &work)
end

# Each Sync, and each simple query, is answered by one ReadyForQuery.
def trips(raw, work)
  Tempfile.create do |trace|
    raw.trace(trace)
    requested(&work)
    raw.untrace
    trace.rewind
    trace.read.scan("ReadyForQuery").size
  end
end

def median(work)
  seconds = work.map { [] }
  (-TURNS / 10...TURNS).each do |turn|
    work.each_with_index do |each, at|
      began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      requested(&each)
      seconds[at] << (Process.clock_gettime(Process::CLOCK_MONOTONIC) - began) unless turn.negative?
    end
  end
  seconds.map { |each| each.sort[each.size / 2] * 1e6 }
end

setup = PG.connect(URL)
setup.set_notice_processor { |_| nil }
setup.exec("drop table if exists cost; create table cost (id serial primary key, task text)")
setup.exec("do $$ begin execute format('alter database %I set synchronous_commit to off', current_database()); end $$")

{ "ruby-pg" => :with_pg, "Active Record" => :with_active_record, "Sequel" => :with_sequel }.each do |name, made|
  without, with = [false, true].map { |bemi| send(made, bemi) }
  %i[alone together].each do |kind|
    pair = [without, with]
    micros = median(pair.map(&kind))
    counts = pair.map { |each| trips(each.raw, each[kind]) }
    printf("%-14s %-9s %6.0f us, with it %6.0f us (x %.2f); %d round trips, with it %d\n",
           name, kind, *micros, micros[1] / micros[0], *counts)
  end
end
