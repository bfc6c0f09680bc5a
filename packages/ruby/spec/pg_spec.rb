# frozen_string_literal: true

require "bemi/pg"
require "tempfile"
require "timeout"
require "support/database"

RSpec.describe Bemi::PG do
  include_context "with a database"

  let(:ann) { { "user_id" => "ann" } }
  let(:connection) { Bemi::PG.install(connect) }

  before { Bemi.set_context(user_id: "ann") }

  after { connection.close unless connection.finished? }

  def connect
    PG.connect(Database::URL).tap { |made| made.set_notice_processor { |text| notices << text } }
  end

  def notices
    @notices ||= []
  end

  def drained
    found = []
    while (result = connection.get_result)
      found << (result.error_message.empty? ? result.cmd_status : result.error_message.lines[0].chomp)
    end
    found
  end

  it "refuses what is no connection, and options that there are not" do
    expect { described_class.install("a") }.to raise_error(ArgumentError, /no connection/)
    expect { described_class.install(connection, functons: []) }.to raise_error(ArgumentError, /functons/)
    expect { described_class.install(connection, functions: "a") }.to raise_error(ArgumentError, /names/)
    expect { described_class.install(connection, functions: ["a()"]) }.to raise_error(ArgumentError)
  end

  %w[exec query async_exec async_query sync_exec].each do |name|
    it "sends it with #{name}, and gives what that gives" do
      result = connection.public_send(name, "insert into todo (task) values ('a') returning task")
      expect(result.values).to eq([["a"]])
      block = connection.public_send(name, "insert into todo (task) values ('b')") { |it| it.cmd_tuples }
      expect(block).to eq(1)
      expect(database.seen).to eq([[ann, "insert"]] * 2)
      expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
    end
  end

  %w[exec_params async_exec_params sync_exec_params].each do |name|
    it "sends it with #{name}, formats and types too" do
      sql = "insert into todo (task, n) values ($1, $2) returning n"
      result = connection.public_send(name, sql, ["a", { value: "7", type: 23 }], 1)
      expect(result.getvalue(0, 0)).to eq([7].pack("N"))
      expect(database.seen).to eq([[ann, "insert"]])
    end
  end

  %w[exec_prepared async_exec_prepared sync_exec_prepared].each do |name|
    it "sends it with #{name}, by what was prepared" do
      connection.prepare("add", "insert into todo (task) values ($1)")
      connection.prepare("read", "select count(*) from todo where task = $1")
      connection.public_send(name, "add", ["a"])
      expect(connection.public_send(name, "read", ["a"]).getvalue(0, 0)).to eq("1")
      connection.transaction do
        connection.public_send(name, "read", ["a"])
        connection.public_send(name, "add", ["b"])
        connection.public_send(name, "add", ["c"])
      end
      expect(database.seen).to eq([[ann, "insert"], [ann, "insert", "insert"]])
    end
  end

  it "takes a prepared statement that it does not know for one that writes" do
    connection.exec("prepare add (text) as insert into todo (task) values ($1)")
    connection.exec_prepared("add", ["a"])
    connection.exec("deallocate add")
    expect(database.seen).to eq([[ann, "insert"]])
  end

  it "forgets what is deallocated" do
    10.times do |number|
      connection.prepare("a#{number}", "select 1")
      connection.exec("deallocate a#{number}")
    end
    known = connection.instance_variable_get(:@bemi).instance_variable_get(:@prepared)
    expect(known.size).to eq(0)
  end

  it "takes what may have been prepared anew for what writes" do
    insert = "insert into todo (task) values ('a')"
    ways = [-> { connection.exec("/* x */ deallocate p"); connection.exec("prepare p as #{insert}") },
            -> { connection.exec("select 1; deallocate prepare \"p\"; prepare p as #{insert}") },
            -> { connection.exec("-- x\ndiscard all"); connection.exec("prepare p as #{insert}") },
            -> { connection.send_query("deallocate all"); drained; connection.exec("prepare p as #{insert}") }]
    ways.each do |way|
      connection.prepare("p", "select 1")
      way.call
      connection.exec_prepared("p")
      connection.exec("deallocate p")
    end
    connection.prepare("p", insert)
    connection.send_prepare("p", "select 1") # which fails
    drained
    connection.exec_prepared("p")
    expect(database.seen).to eq([[ann, "insert"]] * 5)
    connection.prepare("read", "select 1")
    connection.exec("notify x, 'prepare read'")
    connection.transaction { connection.exec_prepared("read") }
    expect(database.seen).to eq([])
  end

  it "knows nothing of a transaction in which it is installed again" do
    connection.transaction do
      connection.exec("insert into todo (task) values ('a')")
      described_class.install(connection)
      Bemi.clear_context
      connection.exec("insert into todo (task) values ('b')")
    end
    expect(database.attributed).to eq([[ann, "a"], [{}, "b"]])
  end

  it "needs no more round trips than without it" do
    port = Bemi::PG.install(connect)
    # Each Sync, and each simple query, is answered by one ReadyForQuery.
    port.exec("insert into todo (task) values ('first')")
    trips = lambda do |doing|
      trace = Tempfile.new
      port.trace(trace)
      doing.call
      port.untrace
      trace.rewind
      trace.read.lines.count { |line| line.include?("ReadyForQuery") }
    end
    expect(trips.(-> { port.exec("insert into todo (task) values ('a')") })).to eq(1)
    expect(trips.(-> { port.exec("insert into todo (task) values ('$1'), ($$b$$) -- $2") })).to eq(1)
    expect(trips.(-> { port.exec_params("insert into todo (task) values ($1)", ["a"]) })).to eq(1)
    expect(trips.(-> { port.transaction { port.exec("insert into todo (task) values ('a')") } })).to eq(3)
    port.close
  end

  it "leaves errors, their classes and positions as they are" do
    plain = connect
    ["insert into todo (n) values (1 / 0)", "insert into todo (m) values (1)", "inser into todo",
     "insert into todo (id) values (-1), (-1)", "insert into nowhere values (1)",
     "insert into todo (n) values ($1)", "insert into todo (task) values ('\0')"].each do |sql|
      told = [plain, connection].map do |each|
        each.exec(sql)
      rescue StandardError => e
        [e.class, e.message, e.respond_to?(:result) && e.result&.error_field(PG::PG_DIAG_STATEMENT_POSITION)]
      end
      expect(told[1]).to eq(told[0])
      expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
    end
    told = [plain, connection].map do |each|
      each.exec_params("insert into todo (n) values ($1)", ["x"])
    rescue PG::Error => e
      [e.class, e.message]
    end
    expect(told[1]).to eq(told[0])
    plain.close
  end

  it "raises what only a commit finds, in autocommit" do
    connection.exec("create table kid (todo int references todo deferrable initially deferred)")
    expect { connection.exec("insert into kid values (77)") }.to raise_error(PG::ForeignKeyViolation)
    connection.send_query("insert into kid values (77)")
    expect(drained).to match(["INSERT 0 1", /violates foreign key/])
    expect { connection.exec("insert into kid values (7); insert into kid values (8)") }
      .to raise_error(PG::ForeignKeyViolation)
    expect { connection.copy_data("copy kid from stdin") { connection.put_copy_data("9\n") } }
      .to raise_error(PG::ForeignKeyViolation)
    expect(connection.exec("select count(*) from kid").getvalue(0, 0)).to eq("0")
  end

  it "passes notices on, once" do
    connection.exec("create table if not exists todo (id int)")
    expect(notices.size).to eq(1)
  end

  it "sends what is large" do
    large = "x" * 5_000_000
    connection.exec_params("insert into todo (task) values ($1)", [large])
    expect(connection.exec("select length(task) from todo").getvalue(0, 0)).to eq("5000000")
    expect(connection.exec("insert into todo (task) values ('#{large}') returning task").getvalue(0, 0)).to eq(large)
    database.seen
  end

  it "commits several statements in one text as one" do
    connection.exec("insert into todo (task) values ('a'); update todo set n = 1")
    expect { connection.exec("insert into todo (task) values ('b'); select 1 / 0") }
      .to raise_error(PG::DivisionByZero)
    expect(database.seen).to eq([[ann, "insert", "update"]])
    expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
  end

  it "copies in and out, in autocommit and in a transaction" do
    connection.copy_data("copy todo (task) from stdin") { 2.times { connection.put_copy_data("a\n") } }
    connection.transaction do
      connection.copy_data("copy todo (task) from stdin") { connection.put_copy_data("b\n") }
    end
    rows = []
    connection.copy_data("copy (delete from todo returning task) to stdout") do
      while (row = connection.get_copy_data)
        rows << row
      end
    end
    expect(rows).to eq(%W[a\n a\n b\n])
    expect(database.seen).to eq([[ann, "insert", "insert"], [ann, "insert"], [ann] + (["delete"] * 3)])
  end

  it "copies nothing where the application fails meanwhile" do
    expect { connection.copy_data("copy todo (task) from stdin") { raise ArgumentError, "mine" } }
      .to raise_error(ArgumentError, "mine")
    expect { connection.copy_data("copy nowhere from stdin") { nil } }.to raise_error(PG::UndefinedTable)
    expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
    expect(database.tasks).to eq([])
  end

  it "goes on after a COPY that the application left" do
    connection.exec("insert into todo (task) values ('b'), ('c')")
    expect do
      connection.copy_data("copy (delete from todo returning task) to stdout") { raise ArgumentError }
    end.to raise_error(ArgumentError)
    expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
    connection.exec("copy todo (task) from stdin")
    connection.exec("insert into todo (task) values ('d')") # which ends it
    expect(database.attributed.last).to eq([ann, "d"])
  end

  it "has a COPY committed as soon as its rows are sent" do
    connection.exec("copy todo (task) from stdin")
    connection.put_copy_data("a\n")
    connection.put_copy_end
    expect(database.tasks).to eq(["a"])
    expect(drained).to eq(["COPY 1"])
  end

  it "sends it with queries whose results are read later" do
    connection.send_query("insert into todo (task) values ('a')")
    expect(drained).to eq(["INSERT 0 1"])
    connection.send_query_params("insert into todo (task) values ($1) returning n", ["b"])
    expect(connection.get_last_result.values).to eq([[nil]])
    connection.prepare("add", "insert into todo (task) values ($1)")
    connection.send_query_prepared("add", ["c"])
    expect(drained).to eq(["INSERT 0 1"])
    connection.send_prepare("later", "insert into todo (task) values ('d')")
    drained
    connection.send_query_prepared("later", [])
    expect { |block| connection.get_result(&block) }.to yield_with_args(PG::Result)
    expect(drained).to eq([])
    expect(database.attributed).to eq([[ann, "a"], [ann, "b"], [ann, "c"], [ann, "d"]])
  end

  it "gives no result to who asks first, before the statement's is there" do
    connection.exec("select 1")
    # More than the server sends at once.
    connection.send_query("insert into todo (task) select repeat('a', 9000) from pg_sleep(0.01), " \
                          "generate_series(1, 20) returning task")
    Timeout.timeout(20) do
      while connection.is_busy
        connection.socket_io.wait_readable
        connection.consume_input
      end
    end
    result = connection.sync_get_result
    expect([result.cmd_status, result.ntuples]).to eq(["INSERT 0 20", 20])
    expect(drained).to eq([])
    expect(database.seen).to eq([[ann] + (["insert"] * 20)])
  end

  it "follows what is sent and read later" do
    connection.send_query("begin")
    drained
    connection.send_query("insert into todo (task) values ('a')")
    drained
    connection.send_query("savepoint a; insert into todo (n) values (1 / 0)")
    drained
    connection.send_query("rollback")
    drained
    connection.send_query("insert into todo (task) values ('b')")
    drained
    expect(database.seen).to eq([[ann, "insert"]])
  end

  it "has a query committed by the server, though nobody reads what came of it" do
    connection.send_query("insert into todo (task) values ('a')")
    Timeout.timeout(20) { nil until database.tasks == ["a"] }
    connection.exec("insert into todo (task) values ('b')") # which throws away what was not read
    expect(database.seen).to eq([[ann, "insert"]] * 2)
  end

  it "says that several statements at once, in autocommit, go without" do
    expect do
      connection.send_query("insert into todo (task) values ('a'); delete from todo")
      drained
    end.to output(/several statements/).to_stderr
    expect(database.seen).to eq([%w[insert delete]])
  end

  it "gives row by row what is asked for so" do
    connection.send_query("insert into todo (task) values ('a'), ('b') returning task")
    connection.set_single_row_mode
    rows = []
    while (result = connection.get_result)
      rows << [result.result_status, result.values]
    end
    expect(rows).to eq([[PG::PGRES_SINGLE_TUPLE, [["a"]]], [PG::PGRES_SINGLE_TUPLE, [["b"]]],
                        [PG::PGRES_TUPLES_OK, []]])
    expect(database.seen).to eq([[ann, "insert", "insert"]])
  end

  it "is in the pipelines of the application, which sees its own results" do
    connection.exec("select 1")
    connection.enter_pipeline_mode
    connection.send_query_params("insert into todo (task) values ($1)", ["a"])
    connection.send_query_params("select $1::int", [7])
    connection.pipeline_sync
    connection.send_query_params("insert into todo (task) values ($1)", ["b"])
    connection.send_query_params("insert into todo (n) values (1 / $1::int)", ["0"])
    connection.pipeline_sync
    statuses = []
    until statuses.count(PG::PGRES_PIPELINE_SYNC) == 2
      statuses << connection.get_result&.result_status
    end
    connection.exit_pipeline_mode
    expect(statuses).to eq([PG::PGRES_COMMAND_OK, nil, PG::PGRES_TUPLES_OK, nil, PG::PGRES_PIPELINE_SYNC,
                            PG::PGRES_COMMAND_OK, nil, PG::PGRES_FATAL_ERROR, nil, PG::PGRES_PIPELINE_SYNC])
    connection.exec("insert into todo (task) values ('c')")
    expect(database.attributed).to eq([[ann, "a"], [ann, "c"]])
  end

  it "gives row by row what is asked for so in a pipeline of the application's" do
    connection.enter_pipeline_mode
    connection.send_query_params("insert into todo (task) values ('a'), ('b')", [])
    connection.send_query_params("delete from todo returning task", [])
    connection.pipeline_sync
    connection.set_single_row_mode
    statuses = 2.times.map { connection.get_result&.result_status }
    connection.set_single_row_mode
    statuses << connection.get_result&.result_status until statuses.last == PG::PGRES_PIPELINE_SYNC
    connection.exit_pipeline_mode
    expect(statuses).to eq([PG::PGRES_COMMAND_OK, nil, PG::PGRES_SINGLE_TUPLE, PG::PGRES_SINGLE_TUPLE,
                            PG::PGRES_TUPLES_OK, nil, PG::PGRES_PIPELINE_SYNC])
  end

  it "is in no pipeline of the application's that could not be entered" do
    plain = connect
    told = [plain, connection].map do |each|
      each.send_query("select 1")
      each.consume_input until each.is_busy == false
      each.sync_get_result
      Thread.new { each.exec("select pg_sleep(0.2)") }.tap { sleep 0.05 }.kill.join
      each.enter_pipeline_mode
    rescue PG::Error => e
      e.message
    end
    plain.close
    expect(told[1]).to eq(told[0])
    connection.exec("insert into todo (task) values ('a')")
    expect(database.attributed).to eq([[ann, "a"]])
  end

  it "says that a pipeline's writes after SET ROLE go without" do
    connection.enter_pipeline_mode
    connection.send_query_params("set role postgres", [])
    expect { connection.send_query_params("insert into todo (task) values ('a')", []) }
      .to output(/in a pipeline/).to_stderr
    connection.pipeline_sync
    syncs = 0
    syncs += 1 if connection.get_result&.result_status == PG::PGRES_PIPELINE_SYNC until syncs == 1
    connection.exit_pipeline_mode
    expect(database.seen).to eq([["insert"]])
  end

  it "goes on after a statement was left by a Timeout" do
    expect { Timeout.timeout(0.2) { connection.exec("insert into todo (task) select 'a' from pg_sleep(0.5)") } }
      .to raise_error(Timeout::Error)
    connection.exec("insert into todo (task) values ('b')")
    expect(database.attributed).to eq([[ann, "a"], [ann, "b"]])
  end

  it "goes on wherever it was left by a Timeout, and nobody's row is another one's" do
    chance = Random.new(7)
    ways = [
      ->(user) { connection.exec("insert into todo (task) values ('#{user}')") },
      ->(user) { connection.exec_params("insert into todo (task) select $1 from pg_sleep(0.001)", [user]) },
      ->(user) { connection.transaction { 2.times { ways_insert(user) } } },
      ->(user) { connection.exec("insert into todo (task) values ('#{user}'); update todo set n = 1") },
      ->(user) { connection.send_query("insert into todo (task) values ('#{user}')") },
      lambda do |user|
        connection.copy_data("copy todo (task) from stdin") { connection.put_copy_data("#{user}\n") }
      end
    ]
    left = 300.times.count do
      user = "user #{chance.rand(5)}"
      Bemi.set_context(user_id: user)
      Timeout.timeout(0.0005 + (chance.rand * 0.003)) { ways.sample(random: chance).call(user) } && false
    rescue Timeout::Error
      true
    rescue PG::Error, SystemCallError # ruby-pg itself may lose its connection so
      connection.reset
      false
    end
    expect(left).to be_positive
    connection.exec("rollback") unless connection.transaction_status == PG::PQTRANS_IDLE
    connection.exec("insert into todo (task) values ('last')")
    wrong = database.attributed[..-2].reject { |context, task| context == { "user_id" => task } }
    expect(wrong).to eq([])
  end

  def ways_insert(user)
    connection.exec_params("insert into todo (task) values ($1)", [user])
  end

  it "goes on after its connection was lost and made again" do
    connection.exec("insert into todo (task) values ('a')")
    database.connection.exec("select pg_terminate_backend(#{connection.backend_pid}, 20000)")
    expect { connection.exec("insert into todo (task) values ('b')") }.to raise_error(PG::ConnectionBad)
    connection.reset
    connection.exec("insert into todo (task) values ('c')")
    expect(database.attributed).to eq([[ann, "a"], [ann, "c"]])
  end

  it "is nothing of a parameter that can't be sent" do
    unsendable = Class.new { def to_s = raise(TypeError, "no") }.new
    expect { connection.exec_params("insert into todo (task) values ($1)", [unsendable]) }
      .to raise_error(TypeError, "no")
    expect { connection.exec(nil) }.to raise_error(TypeError)
    expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
    connection.exec("insert into todo (task) values ('a')")
    expect(database.attributed).to eq([[ann, "a"]])
  end

  it "is nothing of a parameter whose encoding fails in whatever way, in a block neither" do
    failing = Class.new { def to_s = raise("mine") }.new
    add = -> { connection.exec_params("insert into todo (task) values ($1)", [failing]) }
    Timeout.timeout(20) do
      expect(&add).to raise_error(RuntimeError, "mine")
      expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
      expect { connection.transaction { add.call } }.to raise_error(RuntimeError, "mine")
    end
    connection.exec("insert into todo (task) values ('a')")
    expect(database.attributed).to eq([[ann, "a"]])
  end

  it "leaves the unnamed statement to the application" do
    plain = connect
    told = [plain, connection].map do |each|
      each.prepare("", "insert into todo (n) values ($1) returning n", [20])
      found = [each.exec_prepared("", ["1"]).values, each.exec_prepared("", ["2"]).values]
      found << each.transaction do
        each.prepare("", "insert into todo (n) values ($1) returning n")
        each.exec_prepared("", ["3"]).values
      end
      each.send_prepare("", "insert into todo (n) values (4) returning n")
      each.get_last_result
      each.send_query_prepared("", [])
      found << each.get_last_result.values
      each.exec("select 1")
      begin
        each.exec_prepared("", [])
      rescue PG::Error => e
        found << e.message
      end
    end
    plain.close
    expect(told[1]).to eq(told[0])
    expect(told[1][..3]).to eq([[["1"]], [["2"]], [["3"]], [["4"]]])
    expect(database.seen).to eq(([["insert"]] * 4) + ([[ann, "insert"]] * 4))
  end

  it "leaves the unnamed statement of a pipeline of the application's" do
    connection.enter_pipeline_mode
    connection.send_prepare("", "insert into todo (task) values ($1)")
    connection.send_query_prepared("", ["a"])
    connection.pipeline_sync
    statuses = []
    statuses << connection.get_result&.result_status until statuses.last == PG::PGRES_PIPELINE_SYNC
    connection.exit_pipeline_mode
    expect(statuses).to eq([PG::PGRES_COMMAND_OK, nil, PG::PGRES_COMMAND_OK, nil, PG::PGRES_PIPELINE_SYNC])
    expect(database.attributed).to eq([[ann, "a"]])
  end

  it "takes texts in all encodings that ruby-pg takes" do
    insert = "insert into todo (task) values ('a')"
    texts = [insert.encode("UTF-16LE"), insert.encode("ISO-2022-JP"), insert.dup.force_encoding("UTF-7"),
             "insert into todo (task) values ('\xE9')"]
    connection.set_client_encoding("LATIN1")
    texts.each { |text| connection.exec(text) }
    connection.exec("set application_name = '\xE9'") # which is no valid text
    literal = described_class.install(connect, sql: true, literal: true)
    literal.set_client_encoding("LATIN1")
    literal.exec(texts.last)
    literal.close
    expect(database.seen).to eq(([[ann, "insert"]] * 4) +
                                [[{ **ann, "SQL" => "insert into todo (task) values (…" }, "insert"]])
  end

  it "says of a connection what ruby-pg says" do
    plain = connect
    told = [plain, connection].map do |each|
      found = []
      ["insert into nowhere values (1)", "insert into todo (task) values ('a')"].each do |sql|
        each.exec(sql)
      rescue PG::Error
        found << each.error_message
      ensure
        found << each.error_message
      end
      each.send_query("insert into nowhere values (1)", nil)
      each.get_result
      found << each.error_message << each.get_result << each.error_message
      each.send_query("insert into todo (task) values ('a')")
      begin
        each.send_query("select 1")
      rescue PG::UnableToSend => e
        found << e.message << e.connection.equal?(each)
      end
      found << each.get_last_result.cmd_status
      each.send_query("insert into todo (task) values ('b')")
      each.set_client_encoding("UTF8")
      found << each.get_result
    end
    plain.close
    expect(told[1]).to eq(told[0])
  end

  it "asks for what is found out late on the same connection" do
    user = -> { connection.exec("select 'eve'").getvalue(0, 0) }
    Bemi.with_context(user_id: user) { connection.exec("insert into todo (task) values ('a')") }
    expect(database.seen).to eq([[{ "user_id" => "eve" }, "insert"]])
  end

  it "asks what a role may without reading what it may not" do
    database.connection.exec("drop role if exists hardened; create role hardened; grant all on todo, todo_id_seq " \
                             "to hardened; revoke select on pg_proc from public")
    connection.exec("set role hardened")
    connection.exec("insert into todo (task) values ('a')")
    expect(database.attributed).to eq([[ann, "a"]])
  ensure
    connection.exec("reset role")
    database.connection.exec("grant select on pg_proc to public; drop owned by hardened; drop role hardened")
  end

  it "sends what is current when it is told to" do
    connection.transaction do
      described_class.emit(connection)
      Bemi.clear_context
      described_class.emit(connection)
      connection.exec("select txid_current()")
    end
    expect(database.seen).to eq([[ann, {}]])
    expect { described_class.emit(connection) }.to output(/outside of a transaction/).to_stderr
  end

  it "has a transaction block where libpq has no pipelines" do
    stub_const("Bemi::PG::Exchange::PIPELINES", false)
    connection.exec("insert into todo (task) values ('a')")
    expect { connection.exec("insert into todo (n) values (1 / 0)") }.to raise_error(PG::DivisionByZero)
    connection.transaction { connection.exec_params("insert into todo (task) values ($1)", ["b"]) }
    expect(database.seen).to eq([[ann, "insert"]] * 2)
    expect(connection.transaction_status).to eq(PG::PQTRANS_IDLE)
  end
end
