# frozen_string_literal: true

require "bemi/pg"

# ruby-pg as it is.
module Library
  INSERT = "insert into todo (task) values ($1)"

  def self.open(address, plain, options)
    Session.new(-> { connect(address, plain, options) })
  end

  def self.connect(address, plain, options)
    connection = ::PG.connect(**address.transform_keys(&:to_sym))
    connection.set_notice_processor { |_| nil }
    Bemi::PG.install(connection, **options) unless plain
    connection.type_map_for_results = ::PG::BasicTypeMapForResults.new(connection)
    connection
  end

  # One connection.
  class Session
    def initialize(connects)
      @connects = connects
      @connection = connects.call
      @blocks = 0
    end

    def run(statement, parameters = [])
      rows(statement, parameters, &:values)
    end

    def count(statement, parameters = [])
      rows(statement, parameters, &:cmd_tuples)
    end

    # Of one statement that is prepared.
    def many(statement, rows)
      @connection.prepare("many", numbered(statement, rows[0].size))
      rows.each { |row| @connection.exec_prepared("many", row) }
    ensure
      @connection.exec("deallocate many") if @connection.transaction_status != ::PG::PQTRANS_INERROR
    end

    def copy(table, rows)
      encoder = ::PG::TextEncoder::CopyRow.new
      @connection.copy_data("copy #{table} from stdin", encoder) do
        rows.each { |row| @connection.put_copy_data(row) }
      end
      nil
    end

    # It has none inside of another one, so the application makes a savepoint.
    def block(&doing)
      return @connection.transaction { doing.call } if @blocks.zero? && idle?

      savepoint(&doing)
    end

    def close
      @connection.close
    end

    def concurrent(writes, requests)
      pool = Queue.new
      5.times { pool << @connects.call }
      Concurrently.run(writes, requests) do |user, each|
        each.times do |number|
          connection = pool.pop
          begin
            write(connection, user, number)
          ensure
            pool << connection
          end
        end
      end
      5.times { pool.pop.close }
    end

    private

    def write(connection, user, number)
      connection.exec("select count(*) from todo where task = 'nobody'") if number % 3 == 1
      if number.even?
        connection.exec_params(INSERT, [user])
      else
        connection.transaction { connection.exec_params(INSERT, [user]) }
      end
    end

    def idle?
      @connection.transaction_status == ::PG::PQTRANS_IDLE
    end

    def savepoint
      name = "block_#{@blocks += 1}"
      @connection.exec("savepoint #{name}")
      begin
        yield
      rescue StandardError
        @connection.exec("rollback to #{name}")
        raise
      ensure
        @blocks -= 1
      end
      @connection.exec("release #{name}")
    end

    def rows(statement, parameters, &taken)
      return @connection.exec(statement, &taken) if parameters.empty?

      @connection.exec_params(numbered(statement, parameters.size), parameters, &taken)
    end

    def numbered(statement, parameters)
      (1..parameters).inject(statement) { |text, number| text.sub("{}", "$#{number}") }
    end
  end
end
