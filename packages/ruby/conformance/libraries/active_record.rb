# frozen_string_literal: true

require "bemi/active_record"

# Active Record, with statements of the application's own.
module Library
  def self.open(address, plain, options)
    plain ? Bemi::ActiveRecord.uninstall : Bemi::ActiveRecord.install(**options)
    ::ActiveRecord::Base.establish_connection(
      adapter: "postgresql", host: address["host"], port: address["port"], pool: 5, checkout_timeout: 60,
      username: address["user"], password: address["password"], database: address["dbname"]
    )
    ::ActiveRecord::Base.connection.execute("set client_min_messages = error")
    Session.new
  end

  # A row of the table that the rules write to.
  class Todo < ::ActiveRecord::Base
    self.table_name = "todo"
  end

  # The connection of this thread.
  class Session
    def run(statement, parameters = [])
      connection.exec_query(numbered(statement, parameters.size), "SQL", parameters).rows
    end

    def count(statement, parameters = [])
      connection.update(numbered(statement, parameters.size), "SQL", parameters)
    end

    def many(statement, rows)
      rows.each { |row| run(statement, row) }
      nil
    end

    def copy(table, rows)
      raw = connection.raw_connection
      raw.copy_data("copy #{table} from stdin", ::PG::TextEncoder::CopyRow.new) do
        rows.each { |row| raw.put_copy_data(row) }
      end
      nil
    end

    def block(&doing)
      connection.transaction(requires_new: true, &doing)
    end

    def close
      ::ActiveRecord::Base.remove_connection
    end

    def concurrent(writes, requests)
      Concurrently.run(writes, requests) do |user, each|
        ::ActiveRecord::Base.connection_pool.with_connection do |connection|
          each.times do |number|
            Todo.where(task: "nobody").count if number % 3 == 1
            write(connection, user, number)
          end
        end
      end
    end

    private

    def connection
      ::ActiveRecord::Base.connection
    end

    def write(connection, user, number)
      if number.even?
        connection.exec_query("insert into todo (task) values ($1)", "SQL", [user])
      else
        Todo.create!(task: user)
      end
    end

    def numbered(statement, parameters)
      (1..parameters).inject(statement) { |text, number| text.sub("{}", "$#{number}") }
    end
  end
end
