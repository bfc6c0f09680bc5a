# frozen_string_literal: true

require "bigdecimal"
require "date"
require "set"
require "time"
require "bemi/json"
require "bemi/lazy"

module Bemi
  # Turns values into what JSON has, and notes which ones it altered. Never raises.
  class Encoder
    REDACTED = "***"
    # Deep enough for any request, far from where parsers give up.
    MAX_DEPTH = 64
    # The server's jsonb would take longer ones, but not every language's parser.
    MAX_BITS = 1024
    # No more fit into a message; what refers to itself twice would go on for ever.
    MAX_VALUES = 1 << 19
    # What the application's own classes may raise.
    FAILURES = [StandardError, ScriptError, SystemStackError].freeze
    # Letters and digits only, in lower case, at the end of a member's name.
    SECRET = /(?:password|passwd|pwd|passphrase|secret|secretkey|accesskey|apikey|privatekey|token
      |jwt|authorization|cookie|sessionid|sessionkey|credential|creditcard|cardnumber|cvv|cvc)
      (?<plural>s?)\p{Nd}*\z/x.freeze
    COUNTS = [Integer, Float, true, false].freeze
    SEPARATORS = /[^\p{L}\p{N}]+/.freeze
    REPLACEMENT = "\ufffd"
    # Half of a surrogate pair, as JSON's parser leaves it.
    HALF_PAIR = /\xED[\xA0-\xBF][\x80-\xBF]/n.freeze
    # Those whose bytes may be anything; a web server gives texts as bytes.
    BYTES = [Encoding::UTF_8, Encoding::BINARY, Encoding::US_ASCII].freeze
    CLASS = Kernel.instance_method(:class) # which a BasicObject has not
    private_constant(*constants(false))

    def initialize(notes, redact:)
      @notes = notes
      @redact = redact
      @left = MAX_VALUES
    end

    def value(value, path, depth)
      scalar(value, path) { composite(value, path, depth) }
    rescue *FAILURES
      name_of(value, path)
    end

    private

    def scalar(value, path)
      case value
      when nil, true, false then value
      when String, Symbol then text(value.to_s, path)
      when Integer then value.bit_length > MAX_BITS ? name_of(value, path) : value
      when Float then value.finite? ? value : infinite(value)
      when BigDecimal then value.finite? ? decimal(value) : infinite(value)
      when Rational then value.to_s
      when Time then value.xmlschema(value.nsec.zero? ? 0 : 6)
      when Date then value.iso8601
      else yield
      end
    end

    def composite(value, path, depth)
      @left -= 1
      return name_of(value, path) if depth >= MAX_DEPTH || @left.negative?

      case value
      when Lazy then value(value.call, path, depth)
      when Hash then mapping(value, path, depth)
      when Struct then mapping(value.to_h, path, depth)
      when Array, Set
        value.each_with_index.map { |item, at| value(item, path + [at.to_s], depth + 1) }
      else other(value, path, depth)
      end
    end

    def other(value, path, depth)
      return mapping(value.to_h, path, depth) if defined?(::Data.define) && value.is_a?(::Data)
      return value.iso8601 if defined?(ActiveSupport::Duration) && ActiveSupport::Duration === value

      name_of(value, path)
    end

    def mapping(value, path, depth)
      value.each_with_object({}) do |(key, member), members|
        name = name(key, path)
        if @redact && secret?(name, member)
          @notes.add("redacted", path + [name])
          members[name] = REDACTED
          next
        end
        encoded = value(member, path + [name], depth + 1)
        members[name] = encoded unless encoded.nil? && Lazy === member
      end
    end

    def name(key, path)
      if String === key || Symbol === key
        name, altered = storable(key.to_s)
        @notes.add("replaced", path + [name]) if altered
        return name
      end
      encoded = value(key, path, MAX_DEPTH)
      encoded.is_a?(String) ? encoded : Json.dump(encoded)
    end

    def text(value, path)
      text, altered = storable(value)
      @notes.add("replaced", path) if altered
      text
    end

    # A text in UTF-8, and whether it is another one than before.
    def storable(text)
      utf8, altered = in_utf8(text)
      utf8.include?("\0") ? [utf8.tr("\0", REPLACEMENT), true] : [utf8, altered]
    end

    def in_utf8(text)
      return [text, false] if text.encoding == Encoding::UTF_8 && text.valid_encoding?
      return in_utf8_by_its_encoding(text) unless BYTES.include?(text.encoding)

      utf8 = text.dup.force_encoding(Encoding::UTF_8)
      return [utf8, false] if utf8.valid_encoding?

      whole = text.b.gsub(HALF_PAIR, REPLACEMENT.b).force_encoding(Encoding::UTF_8)
      [whole.scrub(REPLACEMENT), true]
    end

    def in_utf8_by_its_encoding(text)
      [text.encode(Encoding::UTF_8), false]
    rescue EncodingError
      [text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace, replace: REPLACEMENT), true]
    end

    def secret?(name, value)
      found = SECRET.match(name.downcase.gsub(SEPARATORS, ""))
      # `tokens` may be counted.
      !found.nil? && !(found[:plural] == "s" && COUNTS.any? { |kind| kind === value })
    end

    # Written out, but where that would be a text of zeros.
    def decimal(value)
      value.to_s(value.exponent.abs > MAX_BITS ? "E" : "F")
    end

    # As PostgreSQL spells them, since JSON has no number for them.
    def infinite(value)
      return "NaN" if value.nan?

      value.positive? ? "Infinity" : "-Infinity"
    end

    def name_of(value, path)
      @notes.add("replaced", path)
      of_class = Lazy === value ? Proc : CLASS.bind_call(value)
      of_class.name || of_class.to_s[/\A#<\w+/] || "Object"
    end
  end
end
