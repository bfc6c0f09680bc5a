# frozen_string_literal: true

require "bemi/current"
require "bemi/notice"
require "bemi/statements"
require "bemi/wire"

module Bemi
  # A content to be sent before a statement, and the context that it is of. `wrap`: in a transaction
  # around the two. `if_written`: only where the transaction has written something, which nobody
  # saw.
  Due = Struct.new(:content, :mapping, :wrap, :if_written, keyword_init: true) do
    # What sends it; the content is its one parameter.
    def statement
      if_written ? Sender::SEND_IF_WRITTEN : Sender::SEND
    end
  end

  # Decides when the context of a connection's transaction is to be sent, and knows what was.
  #
  # One for each connection. It does no I/O: an integration asks `due` before each statement, sends
  # what it is told to, and says how things went. Sent once per transaction, before its first write;
  # again when the context has changed since, or was lost with a savepoint.
  class Sender
    # Stands for what was sent where that is not known: whatever is current has to be sent again.
    UNSURE = ""
    COMMIT = Statements.classify("commit")
    SEND = "select pg_catalog.pg_logical_emit_message(true, '_bemi', cast($1 as pg_catalog.text))"
    # An answer that says whether anything was written would be a statement more; this is none.
    SEND_IF_WRITTEN =
      "select case when pg_catalog.pg_current_xact_id_if_assigned() is not null " \
      "then pg_catalog.pg_logical_emit_message(true, '_bemi', cast($1 as pg_catalog.text)) end"
    # Where values begin in a text that they were put into: a literal, a number, a word.
    VALUE = /'|"(?:[^"]|"")*"|\$(?!\d)|\b(?:true|false|null)\b|(?<![\w$])\d/i.freeze
    private_constant :VALUE
    # Asked once per connection: a statement that fails would end the application's transaction. So
    # it reads no table, which a role might not; the function has an argument more from 17 on.
    CHECK =
      "select pg_catalog.pg_is_in_recovery(), " \
      "pg_catalog.has_function_privilege(p.found, 'execute'), " \
      "p.found::text, " \
      "pg_catalog.current_setting('wal_level') = 'logical' " \
      "from (select coalesce(pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message(" \
      "pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool)'), " \
      "pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message(" \
      "pg_catalog.bool, pg_catalog.text, pg_catalog.text)')) " \
      "as found) p"

    # Whether the role may send; nil while that was not asked (see `CHECK`).
    attr_reader :allowed

    # `functions`: names of functions whose calls count as writes: in a SELECT that can't be seen.
    #
    # `check_at_commit`: a transaction that seems to have read only is looked at when it is
    # committed: where it wrote, its context is sent then.
    #
    # `sql`: each statement that writes has its text in its changes' context, as `SQL`, never with
    # its parameters. A message per statement then.
    #
    # `redact`: members that look like secrets are sent as `***`. By default they are.
    #
    # `literal`, for integrations: statements have values in their texts.
    #
    # Raises ArgumentError for an option that there is not, and for what names no functions.
    def initialize(functions: [], check_at_commit: false, sql: false, redact: true, literal: false)
      @functions = names(functions)
      @check_at_commit = check_at_commit
      @sql = sql
      @redact = redact
      @literal = literal
      @savepoints = []
      ended
    end

    def statement(text)
      Statements.classify(text, @functions)
    end

    # What has to be sent before a statement, if anything. `in_transaction`: one is open; otherwise
    # the statement is one by itself.
    def due(statement, in_transaction:, text: "")
      ended unless in_transaction
      return if @allowed == false
      return (due_at_commit if in_transaction) if !statement.controls.empty? && statement == COMMIT
      return unless statement.writes

      wrap = !in_transaction
      return if wrap && !statement.wrappable

      due_before(text, wrap)
    end

    # What `emit` sends: the present context, an empty one, too, so that another ends.
    def now
      mapping = Current.peek
      Due.new(content: Wire.encode(mapping, redact: @redact), mapping: mapping)
    end

    # Take the row that `CHECK` gave, as texts; whether to send. A standby is asked again later.
    def checked(row)
      in_recovery, may_emit, function, is_logical = row
      if in_recovery == "t"
        Notice.warn_once("the server is a standby: it takes no writes, and so no contexts")
        return false
      end
      @allowed = may_emit == "t" && is_logical == "t"
      tell_why(function, is_logical) unless @allowed
      @allowed
    end

    # It went into the open transaction, which a wrapped one has to itself.
    def sent(due)
      @sent, @mapping = due.content, due.mapping unless due.wrap
    end

    # A statement succeeded: follow what it did to the transaction, and to the role.
    def ran(statement)
      follow_role(statement)
      statement.controls.each do |control, name|
        case control
        when :end, :rollback then ended
        when :savepoint then @savepoints.push([name, @sent])
        when :release then leave(name)
        when :rollback_to then rolled_back_to(name)
        end
        # BEGIN in an open transaction changes nothing; else `due` knew that there was none.
      end
    end

    # A statement, or what was sent before it, raised an error, on the server or before.
    def failed(statement)
      follow_role(statement)
      if statement.controls.any? { |control, _| %i[end rollback].include?(control) }
        ended
      else
        unsure
      end
    end

    # A transaction goes on of which nothing is known.
    def joined
      @sent = UNSURE
    end

    # What was sent may be there or not.
    def unsure
      @sent, @mapping = UNSURE, nil if @sent
    end

    # The transaction was committed or rolled back, or there is none.
    def ended
      @sent = @mapping = nil
      @savepoints.clear
      # What was set for the transaction is as it was before.
      @allowed = nil if @role_changed
      @role_changed = false
    end

    # Another session, of which nothing is known.
    def reconnected
      ended
      @allowed = nil
    end

    private

    def due_before(text, wrap)
      mapping = Current.peek
      return if mapping.equal?(@mapping) && @sent && !@sent.empty? && !@sql
      return if @sent.nil? && mapping.empty? && !@sql # as it is without a message

      values = @sql ? mapping.merge(SQL: without_values(text)) : mapping
      content = Wire.encode(values, redact: @redact)
      if content == @sent
        @mapping = mapping
        return
      end
      Due.new(content: content, mapping: mapping, wrap: wrap)
    end

    # A statement up to its first value, where it may have any.
    def without_values(text)
      return text unless @literal

      text = Statements.readable(text)
      at = 0
      while (found = VALUE.match(text, at))
        return "#{found.pre_match}…" unless found[0].start_with?('"')

        at = found.end(0)
      end
      text
    end

    def due_at_commit
      mapping = Current.peek
      return if !@check_at_commit || (@sent && !@sent.empty?) || mapping.empty?

      now.tap { |due| due.if_written = true }
    end

    def tell_why(function, is_logical)
      if is_logical != "t"
        Notice.warn_once(
          "the server's wal_level is not logical, so no change is captured, and no context is " \
          "sent; fix: set wal_level = logical and restart the server"
        )
      else
        Notice.warn_once(
          "the database role may not send contexts, so changes are captured without; " \
          "fix: grant execute on function #{function} to the role"
        )
      end
    end

    def follow_role(statement)
      @allowed, @role_changed = nil, true if statement.roles
    end

    # What was sent since is lost. Of a savepoint that was not seen, that is not known.
    def rolled_back_to(name)
      @mapping = nil
      @sent = leave(name)
      @savepoints.push([name, @sent])
      @allowed = nil if @role_changed
    end

    # Forget a savepoint and those behind it; what had been sent when it was set.
    def leave(name)
      at = @savepoints.rindex { |set, _| set == name }
      return UNSURE unless at

      sent = @savepoints[at][1]
      @savepoints.slice!(at..)
      sent
    end

    def names(functions)
      unless functions.respond_to?(:map) && functions.all? { |name| name_like?(name) }
        raise ArgumentError, "functions: takes names, as in functions: [\"add_one\"], " \
                             "not #{functions.inspect}"
      end
      functions.map { |name| function_name(name) }.to_set.freeze
    end

    def name_like?(name)
      name.is_a?(String) || name.is_a?(Symbol)
    end

    def function_name(function)
      name = function.to_s.downcase.rpartition(".").last.delete_prefix('"').delete_suffix('"')
      return name unless name.empty? || name.match?(/[() ]/)

      raise ArgumentError, "functions: takes names without parentheses, not #{function.inspect}"
    end
  end
end
