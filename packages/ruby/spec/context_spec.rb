# frozen_string_literal: true

require "bemi/wire"

RSpec.describe Bemi do
  def encoded(context)
    JSON.parse(Bemi::Wire.encode(context))
  end

  it "gives what the block gives, and the outer context back, also after an error" do
    expect(Bemi.with_context(a: 1) { Bemi.current_context }).to eq(a: 1)
    expect { Bemi.with_context(a: 1) { raise ArgumentError } }.to raise_error(ArgumentError)
    expect(Bemi.current_context).to eq({})
  end

  it "takes names as symbols and texts, which are the same" do
    Bemi.set_context({ "user_id" => 1 }, "trace-id": 7)
    Bemi.merge_context(user_id: 2)
    expect(Bemi.current_context).to eq(user_id: 2, "trace-id": 7)
  end

  it "puts back what was before a block, whatever was set in it" do
    Bemi.set_context(a: 1)
    Bemi.with_context(b: 2) do
      Bemi.set_context(c: 3)
      expect(Bemi.current_context).to eq(c: 3)
    end
    expect(Bemi.current_context).to eq(a: 1)
  end

  it "has a context of its own in each thread, and begins with none there" do
    Bemi.with_context(user_id: "ann") do
      expect(Thread.new { Bemi.current_context }.value).to eq({})
      Thread.new { Bemi.set_context(user_id: "bob") }.join
      expect(Bemi.current_context).to eq(user_id: "ann")
    end
  end

  it "keeps fibers that take turns apart" do
    fibers = %w[ann bob].map do |user|
      Fiber.new do
        Bemi.with_context(user_id: user) do
          Fiber.yield
          Bemi.current_context
        end
      end
    end
    fibers.each(&:resume)
    expect(Bemi.current_context).to eq({})
    expect(fibers.map(&:resume)).to eq([{ user_id: "ann" }, { user_id: "bob" }])
  end

  it "begins in a new thread with none, though Ruby 3.2 hands its storage on" do
    program = <<~RUBY
      # As that has it: a new thread begins with a copy.
      class Fiber
        def self.[](name) = (Thread.current[:storage] ||= {})[name]
        def self.[]=(name, value)
          Thread.current[:storage] = { name => value }
        end
      end
      require "bemi"
      Bemi.set_context(user_id: "ann")
      handed_on = Thread.current[:storage]
      seen = Thread.new do
        Thread.current[:storage] = handed_on
        [Bemi.current_context, Bemi.with_context(user_id: "bob") { Bemi.current_context }]
      end.value
      p seen, Bemi.current_context
    RUBY
    said = IO.popen([RbConfig.ruby, "-I", File.expand_path("../lib", __dir__), "-e", program], &:read)
    expect(said).to eq("[{}, {:user_id=>\"bob\"}]\n{:user_id=>\"ann\"}\n").or eq(
      "[{}, {user_id: \"bob\"}]\n{user_id: \"ann\"}\n"
    )
  end

  it "asks a function once, when it is first sent, and leaves out what is nil" do
    asked = 0
    Bemi.with_context(plan: -> { asked += 1 }, none: -> {}) do
      expect(asked).to eq(0)
      2.times { expect(encoded(Bemi.current_context)).to eq("plan" => 1) }
    end
  end

  it "replaces a function that fails, or that needs itself" do
    Bemi.with_context(a: -> { raise "no" }, b: -> { Bemi::Wire.encode(Bemi.current_context) }) do
      expect(encoded(Bemi.current_context)["_bemi"]).to eq("replaced" => ["a"])
    end
  end

  it "encodes what Ruby has" do
    record = Struct.new(:id, :name)
    expect(
      encoded(
        symbol: :new, time: Time.utc(2026, 1, 2, 3, 4, 5), date: Date.new(2026, 1, 2),
        fine: Time.utc(2026, 1, 2, 3, 4, 5, 678_901), exact: BigDecimal("1.50"),
        half: Rational(1, 2), set: Set[1, 2], record: record.new(7, "a"), 1 => 2, nil => 3,
        latin: "Zoë".encode("ISO-8859-1"), bytes_of_text: "Zoë".b, nan: Float::NAN,
        decimal_nan: BigDecimal("-Infinity"), far: BigDecimal("1e100000000")
      )
    ).to eq(
      "symbol" => "new", "time" => "2026-01-02T03:04:05Z", "date" => "2026-01-02",
      "fine" => "2026-01-02T03:04:05.678901Z", "exact" => "1.5", "half" => "1/2", "set" => [1, 2],
      "record" => { "id" => 7, "name" => "a" }, "1" => 2, "null" => 3, "latin" => "Zoë",
      "bytes_of_text" => "Zoë", "nan" => "NaN", "decimal_nan" => "-Infinity",
      "far" => "0.1e100000001"
    )
  end

  it "replaces what can't be encoded by its class's name, and never fails" do
    broken = Class.new(Hash) { def each_with_object(*) = raise(NotImplementedError) }
    stub_const("Broken", broken)
    deep = []
    deep << deep
    sent = encoded(object: Object.new, class: String, basic: BasicObject.new, broken: Broken[1, 2],
                   huge: 1 << 2000, deep: deep, bytes: "\xff\x00".b)
    expect(sent.values_at("object", "class", "basic", "broken", "huge", "bytes")).to eq(
      ["Object", "Class", "BasicObject", "Broken", "Integer", "\ufffd\ufffd"]
    )
    expect(sent["_bemi"]["replaced"]).to include("object", "basic", "broken", "huge", "bytes")
  end

  it "cuts what is too large where it is large" do
    sent = encoded({ small: 1, large: "x" * 1_200_000, list: ["x" * 99] * 6_000 })
    expect(sent["_bemi"]).to eq("truncated" => %w[large list])
    expect(sent["small"]).to eq(1)
    expect(sent["large"]).to end_with("…")
  end

  it "passes a request on to another service" do
    trace = Bemi::Tracing.read_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    headers = Bemi.with_context(request_id: "req-1", trace_id: trace) { Bemi.outgoing_headers }
    expect(headers["X-Request-ID"]).to eq("req-1")
    expect(headers["traceparent"]).to eq(trace.traceparent)
    expect(Bemi::Tracing.read_context(headers["bemi-context"])["trace_id"]).to eq(trace)
    expect(Bemi.outgoing_headers).to eq({})
  end

  it "knows OpenTelemetry's trace where the application has it" do
    flags = double(sampled?: true)
    context = double(hex_trace_id: "a" * 32, hex_span_id: "b" * 16, trace_flags: flags)
    stub_const("OpenTelemetry::Trace", double(current_span: double(context: context)))
    expect(Bemi.outgoing_headers).to eq("traceparent" => "00-#{"a" * 32}-#{"b" * 16}-01")
  end

  it "says each thing once, also where warnings are errors" do
    allow(Warning).to receive(:warn).and_raise("a warning")
    expect { 2.times { Bemi::Notice.warn_once("hm") } }.to output("bemi: hm\n").to_stderr
  end
end
