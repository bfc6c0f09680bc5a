# frozen_string_literal: true

require "bemi/sequel"

# Sequel, with statements of the application's own, whose values it writes into them.
module Library
  def self.open(address, plain, options)
    database = ::Sequel.connect(
      adapter: "postgres", host: address["host"], port: address["port"], max_connections: 5,
      pool_timeout: 60,
      user: address["user"], password: address["password"], database: address["dbname"],
      client_min_messages: "error"
    )
    Bemi::Sequel.install(database, **options) unless plain
    Session.new(database)
  end

  # A database, of which this thread has one connection in a block.
  class Session
    def initialize(database)
      @database = database
    end

    def run(statement, parameters = [])
      @database.fetch(asked(statement), *parameters).map(&:values)
    end

    def count(statement, parameters = [])
      @database[asked(statement), *parameters].update
    end

    def many(statement, rows)
      rows.each { |row| run(statement, row) }
      nil
    end

    def copy(table, rows)
      name, columns = table.delete_suffix(")").split(" (")
      lines = rows.map { |row| "#{row.join("\t")}\n" }
      @database.copy_into(name.to_sym, columns: columns.split(", ").map(&:to_sym), data: lines)
      nil
    end

    def block(&doing)
      @database.transaction(savepoint: true) { doing.call }
    end

    def close
      @database.disconnect
    end

    def concurrent(writes, requests)
      Concurrently.run(writes, requests) do |user, each|
        each.times do |number|
          @database[:todo].where(task: "nobody").count if number % 3 == 1
          if number.even?
            @database[:todo].insert(task: user)
          else
            @database.transaction { @database[:todo].insert(task: user) }
          end
        end
      end
    end

    private

    def asked(statement)
      statement.gsub("{}", "?")
    end
  end
end
