# frozen_string_literal: true

# What Ruby makes of statements and contexts, for `tests/clients/test_ruby.py`: a line in, a line
# out.

$LOAD_PATH.unshift(File.expand_path("../../../packages/ruby/lib", __dir__))
require "json"
require "bemi/statements"
require "bemi/wire"

functions = %w[add_one].to_set
$stdin.each_line do |line|
  asked = JSON.parse(line, max_nesting: false)
  if asked.key?("statement")
    found = Bemi::Statements.classify(asked["statement"], functions)
    controls = found.controls.map { |control, name| [control.to_s.tr("_", " "), name] }
    puts JSON.dump([found.writes, found.wrappable, found.several, controls, found.roles])
  else
    puts Bemi::Wire.encode(asked["context"], limit: asked["limit"], redact: asked["redact"])
  end
end
