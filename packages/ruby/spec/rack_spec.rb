# frozen_string_literal: true

require "bemi/rack"

RSpec.describe Bemi::Rack::Middleware do
  # The context inside of an application, what is found out late, too.
  def seen(env = {}, **options)
    found = nil
    inner = lambda do |_env|
      found = Bemi.current_context.transform_values do |value|
        value.is_a?(Bemi::Lazy) ? value.call : value
      end
      [200, {}, []]
    end
    request = { "REQUEST_METHOD" => "PUT", "PATH_INFO" => "/todo/1" }
    described_class.new(inner, **options).call(request.merge(env))
    found
  end

  it "says who, where and how, and ends with the request" do
    expect(seen({ "HTTP_X_REQUEST_ID" => "req-1", "REMOTE_USER" => "ann" })).to eq(
      request_id: "req-1", trace_id: nil, endpoint: "/todo/1", user_id: "ann", method: "PUT"
    )
    expect(Bemi.current_context).to eq({})
  end

  it "knows Sinatra's routes, and Warden's users" do
    user = Struct.new(:id).new(7)
    found = seen({ "sinatra.route" => "PUT /todo/:id", "warden" => double(user: user) })
    expect(found).to include(endpoint: "/todo/:id", user_id: 7)
    expect(seen({ "REMOTE_USER" => "", "warden" => double(user: user) })).to include(user_id: 7)
  end

  it "takes no more of its caller's context than it is told to" do
    header = { "HTTP_BEMI_CONTEXT" => '{"user_id": 1, "tenant": 2, "endpoint": "x"}' }
    expect(seen(header)).to include(user_id: nil).and(satisfy { |it| !it.key?(:tenant) })
    expect(seen(header, trust: %w[tenant])).to include(tenant: 2, user_id: nil, endpoint: "/todo/1")
    expect(seen(header, trust: true)).to include(tenant: 2, user_id: 1, endpoint: "/todo/1")
  end

  it "takes more values from a function, which may fail" do
    expect(seen(context: ->(env) { { "tenant" => env["PATH_INFO"] } })).to include(tenant: "/todo/1")
    expect { expect(seen(context: ->(_) { raise "no" })).to include(endpoint: "/todo/1") }
      .to output(/its values are missing/).to_stderr
  end

  it "refuses what would fail with each request" do
    expect { described_class.new(nil, context: 1) }.to raise_error(ArgumentError, /context:/)
    expect { described_class.new(nil, trust: "user_id") }.to raise_error(ArgumentError, /trust:/)
  end

  it "has the context where a body is made, piece by piece" do
    body = Class.new do
      def each
        yield Bemi.current_context[:method]
      end

      def close
        @closed = Bemi.current_context[:method]
      end

      def part(size:)
        size
      end
      attr_reader :closed
    end.new
    _, _, given = described_class.new(->(_) { [200, {}, body] }).call("REQUEST_METHOD" => "PUT")
    expect(given.to_enum.to_a).to eq(["PUT"])
    given.close
    expect(body.closed).to eq("PUT")
    expect(given.part(size: 7)).to eq(7)
    expect(given.respond_to?(:to_path)).to be(false)
  end
end
