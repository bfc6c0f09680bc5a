# frozen_string_literal: true

# What Ruby makes of statements and contexts, for `tests/clients/test_ruby_core.py`: a line in, a
# line out.

$LOAD_PATH.unshift(File.expand_path("../../../packages/ruby/lib", __dir__))
require "json"
require "bemi/statements"
require "bemi/wire"

HALVES = { "\ue000" => "\xED\xA0\x80", "\ue001" => "\xED\xB0\x80" }.freeze

def halved(value)
  case value
  when String then value.gsub(/[\ue000\ue001]/, HALVES)
  when Array then value.map { |item| halved(item) }
  when Hash then value.to_h { |name, member| [halved(name), halved(member)] }
  else value
  end
end

$stdin.each_line do |line|
  asked = JSON.parse(line, max_nesting: false)
  if asked.key?("statement")
    found = Bemi::Statements.classify(asked["statement"], asked["functions"].to_set)
    controls = found.controls.map { |control, name| [control.to_s.tr("_", " "), name] }
    puts JSON.dump([found.writes, found.wrappable, found.several, controls, found.roles])
  else
    puts Bemi::Wire.encode(halved(asked["context"]), limit: asked["limit"])
  end
end
