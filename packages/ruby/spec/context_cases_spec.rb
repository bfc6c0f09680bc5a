# frozen_string_literal: true

require "bemi/request"
require "bemi/sender"

# One connection in autocommit, of which only the sender is there: what it would send.
class Connection
  def initialize(options)
    @sender = Bemi::Sender.new(**options.transform_keys(&:to_sym))
    @sender.checked(%w[f t pg_logical_emit_message t])
    @open = false
  end

  def run(text, fails:)
    statement = @sender.statement(text)
    due = @sender.due(statement, in_transaction: @open, text: text)
    @sender.sent(due) if due
    fails ? @sender.failed(statement) : @sender.ran(statement)
    follow(statement.controls.map(&:first))
    due && JSON.parse(due.content)
  end

  private

  def follow(controls)
    @open = true if controls.include?(:begin)
    @open = false unless (controls & %i[end rollback]).empty?
  end
end

RSpec.describe "the cases of the contract" do
  cases("encode").each do |each|
    it "encodes #{each["name"]}" do
      expect(JSON.parse(Bemi::Wire.encode(each["context"]))).to eq(each["content"])
    end
  end

  cases("merge").each do |each|
    it "merges: #{each["name"]}" do
      current = nil
      play = lambda do |steps|
        while (step = steps.shift)
          return if step["close"]

          Bemi.with_context(step["open"]) { play.call(steps) }
        end
        current ||= Bemi.current_context
      end
      play.call(each["steps"].dup)
      expect(JSON.parse(current.to_json)).to eq(each["current"])
    end
  end

  cases("traceparent").each do |each|
    it "reads a traceparent: #{each["name"]}" do
      trace = Bemi::Tracing.read_traceparent(each["header"])
      expect(trace).to eq(each["trace_id"])
      expect(trace&.traceparent).to eq(trace && each["header"])
    end
  end

  cases("request_id").each do |each|
    it "reads a request's id: #{each["name"]}" do
      header = ->(name) { each["header"] if name == "X-Request-ID" }
      values = Bemi::Request.values_of(
        header, trust: %w[request_id], endpoint: "/", method: nil, user: -> {}
      )
      wanted = each["request_id"] || /\A\h{8}-\h{4}-4\h{3}-\h{4}-\h{12}\z/
      expect(values["request_id"]).to wanted.is_a?(String) ? eq(wanted) : match(wanted)
    end
  end

  cases("sending").each do |each|
    it "sends #{each["name"]}" do
      connection = Connection.new(each.fetch("options", {}))
      each["steps"].each do |step|
        sent = Bemi.with_context(step["context"]) do
          connection.run(step["run"], fails: step.fetch("fails", false))
        end
        expect([step, sent]).to eq([step, step["sends"]])
      end
    end
  end
end
