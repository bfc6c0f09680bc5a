# frozen_string_literal: true

# A library, as an application would use it, for the rules in tests/conformance: a line of JSON says
# what to do, a line says what came of it.
#
#     ruby packages/ruby/conformance/run.rb pg

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "json"
require "bemi"
require "bemi/notice"

# Something that no library can send as a parameter.
class Unsendable
  def to_s
    raise TypeError, "it can't be sent"
  end
  alias to_str to_s

  def inspect
    "something unsendable"
  end
end

# Reads what to do and answers. A block of a transaction is one of the library's own, around all
# that is done before it is left.
class Program
  # An error of the application's, by which a block is left.
  class Leaving < StandardError; end
  # The session is closed while a block is open.
  class Closing < StandardError; end

  STATEMENTS = %w[run count many copy].freeze

  def initialize(library)
    @library = library
    @warned = warned = []
    Warning.singleton_class.prepend(
      Module.new { define_method(:warn) do |text, **|
        warned << text.chomp if text.start_with?("bemi:")
      end }
    )
  end

  # Until there is no more to do.
  def run
    serve(nil) until $stdin.eof?
  rescue Closing
    respond { close }
    retry
  end

  private

  # Does what is asked, inside of a :block or a :transaction until that is left, which is answered
  # once it is.
  def serve(inside)
    while (asked = next_asked)
      doing = asked["do"]
      arguments = values(asked["arguments"])
      case doing
      when "leave" then return arguments[0] ? :failed : :left
      when "commit", "rollback"
        return doing == "commit" ? :left : :failed if inside == :transaction

        respond { nil }
      when "close"
        return :closed if inside

        respond { close }
      when "enter" then around(:block) { nil }
      else carry_out(doing, arguments)
      end
    end
    :closed
  end

  def next_asked
    line = $stdin.gets or return
    asked = JSON.parse(line)
    @warned.clear
    Bemi::Notice.told = asked["told"]
    Bemi.set_context(values(asked["context"]))
    asked
  end

  def carry_out(doing, arguments)
    if !STATEMENTS.include?(doing) then respond { send(doing, *arguments) }
    elsif @autocommit || @open then respond { @session.public_send(doing, *arguments) }
    # Outside of autocommit a transaction begins with the first statement.
    else around(:transaction) { @session.public_send(doing, *arguments) }
    end
  end

  def open(address, autocommit, plain, options)
    @autocommit = autocommit
    @open = false
    @session = @library.open(address, plain, options.transform_keys(&:to_sym))
    nil
  end

  def close
    @session.close
    nil
  end

  def concurrent(writes, requests)
    @session.concurrent(writes, requests)
    nil
  end

  def around(inside)
    outer = @open
    outcome = nil
    @session.block do
      @open = true
      respond { yield }
      outcome = serve(inside)
      raise outcome == :closed ? Closing : Leaving unless outcome == :left
    end
    respond { nil }
  rescue Leaving
    respond { nil }
  rescue Closing
    raise
  rescue StandardError => e
    respond { raise e }
  ensure
    @open = outer
  end

  def respond
    value = error = nil
    begin
      value = yield
    rescue Closing
      raise
    rescue StandardError => e
      error = { type: e.class.name, message: e.message }
    end
    answer = { value: value, error: error, warned: @warned, told: Bemi::Notice.told }
    $stdout.puts(JSON.generate(answer))
    $stdout.flush
  end

  # What JSON has not, in what it has.
  def values(value)
    case value
    when Array then value.map { |item| values(item) }
    when Hash then value.key?("$") ? special(value) : value.transform_values { |item| values(item) }
    else value
    end
  end

  def special(value)
    case value["$"]
    when "bytes" then [value["hex"]].pack("H*")
    when "float" then { "nan" => Float::NAN, "inf" => Float::INFINITY }.fetch(value["text"])
    else Unsendable.new
    end
  end
end

# That many inserts over one pool, from that many requests at once, each with a user of its own, who
# is also its task: some in autocommit, some in transactions of two, reads between.
module Concurrently
  def self.run(writes, requests)
    left = Queue.new
    requests.times { |number| left << number }
    each = writes / requests
    threads = Array.new(10) do
      Thread.new do
        while (number = (left.pop(true) rescue nil))
          user = "user #{number}"
          Bemi.with_context(user_id: user) { yield user, each }
        end
      end
    end
    threads.each(&:join)
  end
end

require_relative "libraries/#{ARGV.fetch(0)}"
Program.new(Library).run
