# frozen_string_literal: true

require "json"
require "bemi"
require "bemi/notice"

CASES = File.expand_path("../../../spec/context-cases", __dir__)

# The cases of one file, which all languages run. Ruby's parser refuses half a surrogate pair at the
# end of a text, so that one comes by another way.
def cases(name)
  halved(JSON.parse(File.read(File.join(CASES, "#{name}.json")).gsub('\ud800"', '\ue000"')))
end

def halved(value)
  case value
  when String then value.gsub("\ue000", "\xED\xA0\x80")
  when Array then value.map { |item| halved(item) }
  when Hash then value.transform_values { |member| halved(member) }
  else value
  end
end

RSpec.configure do |config|
  config.disable_monkey_patching!
  config.order = :random
  config.before do
    Bemi.clear_context
    Bemi::Notice.told = []
  end
end
