# frozen_string_literal: true

require_relative "lib/bemi/version"

Gem::Specification.new do |spec|
  spec.name = "bemi"
  spec.version = Bemi::VERSION
  spec.summary = "Who, where and why for each change of a PostgreSQL database"
  spec.description =
    "Sends the application's context with the transaction that it belongs to, through pg, Active " \
    "Record, Rails and Sequel, and reads the history that Bemi captures."
  spec.authors = ["The Bemi maintainers"]
  spec.license = "Apache-2.0"
  # None is needed but what the application has: pg, and one of the libraries that it knows.
  spec.required_ruby_version = ">= 3.0"
  spec.files = Dir["lib/**/*.rb", "README.md", "LICENSE", "NOTICE", base: __dir__]
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
