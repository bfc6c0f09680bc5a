# frozen_string_literal: true

require "json"
require "pg"

# A database of PostgreSQL's that BEMI_TEST_URL names, and what was left in its log, as a plugin that
# is not ours sees it.
class Database
  URL = ENV.fetch("BEMI_TEST_URL", nil)

  attr_reader :connection

  def initialize
    @connection = PG.connect(URL)
    @connection.set_notice_processor { |_| nil }
    @connection.exec("drop table if exists todo cascade; drop table if exists kid cascade")
    @connection.exec("create table todo (id serial primary key, task text, n int)")
    @slot = "seen_#{Process.pid}"
    drop_slot
    @connection.exec("select pg_create_logical_replication_slot('#{@slot}', 'test_decoding')")
  end

  # Since the last call, each transaction: contexts as objects, writes by their names.
  def seen
    lines.each_with_object([]) do |line, found|
      case line
      when /\ABEGIN/ then found << []
      when /\Amessage: transactional: 1 prefix: _bemi,/ then found.last << JSON.parse($'[/content:(.*)/m, 1])
      when /\Atable [^:]*: (\w+)/ then found.last << $1.downcase
      end
    end.reject(&:empty?)
  end

  # Since the last call, each row that was inserted, as the context that it has and its task.
  def attributed
    context = nil
    lines.each_with_object([]) do |line, found|
      case line
      when /\ABEGIN/ then context = nil
      when /\Amessage: transactional: 1 prefix: _bemi,/ then context = JSON.parse($'[/content:(.*)/m, 1])
      when /\Atable public.todo: INSERT.*task\[[\w ]+\]:'([^']*)'/ then found << [context, $1]
      end
    end
  end

  def tasks
    @connection.exec("select task from todo order by id").column_values(0)
  end

  def close
    drop_slot
    @connection.close
  end

  private

  def lines
    @connection.exec_params(
      "select data from pg_logical_slot_get_changes($1, null, null, 'include-xids', '0')", [@slot]
    ).column_values(0)
  end

  def drop_slot
    @connection.exec("select pg_drop_replication_slot(slot_name) from pg_replication_slots " \
                     "where slot_name = '#{@slot}'")
  end
end

RSpec.shared_context "with a database" do
  before(:all) do # rubocop:disable RSpec/BeforeAfterAll
    @database = Database.new if Database::URL
  end

  after(:all) { @database&.close } # rubocop:disable RSpec/BeforeAfterAll

  let(:database) { @database }

  before do
    skip "BEMI_TEST_URL names no database" unless database
    database.connection.exec("drop table if exists kid; truncate todo restart identity")
    database.seen
  end
end
