# frozen_string_literal: true

module Bemi
  VERSION = "0.1.0"
end
