# frozen_string_literal: true

require "json"

module Bemi
  # JSON in ASCII, since a server in another encoding refuses characters that it does not have, and
  # the application's transaction would fail. Of what `Encoder` gives only, and byte for byte what
  # the other languages write, whatever an application has done to `to_json`.
  module Json
    PLAIN = /\A[ !#-\[\]-~]*\z/.freeze
    # Signs by how many they take, as String#count has them; all others take six.
    ONE = ' !#-[]-~'
    TWO = "\"\\\\\n\r\t\f\b"
    # The first bytes of those beyond U+FFFF; a range of so many signs would be looked up one by one.
    TWELVE = "\xF0-\xF4".b.freeze
    private_constant :PLAIN, :ONE, :TWO, :TWELVE

    class << self
      def dump(value)
        case value
        when nil then "null"
        when String then text(value)
        when Float then float(value)
        when Array then "[#{value.map { |item| dump(item) }.join(",")}]"
        when Hash then "{#{value.map { |name, member| "#{text(name)}:#{dump(member)}" }.join(",")}}"
        else value.to_s
        end
      end

      # How many signs `dump` gives.
      def size(value)
        case value
        when String then text_size(value)
        when Array then list_size(value) { |item| size(item) }
        when Hash then list_size(value) { |name, member| text_size(name) + 1 + size(member) }
        else dump(value).size
        end
      end

      private

      def text(value)
        return "\"#{value}\"" if PLAIN.match?(value)

        JSON.generate(value, ascii_only: true).gsub("\x7f", '\u007f')
      end

      def text_size(value)
        return value.size + 2 if PLAIN.match?(value)

        one, two, twelve = value.count(ONE), value.count(TWO), value.b.count(TWELVE)
        2 + one + (2 * two) + (12 * twelve) + (6 * (value.size - one - two - twelve))
      end

      def list_size(value, &each)
        value.empty? ? 2 : value.sum(&each) + value.size + 1
      end

      # The others have an exponent from the one after this on.
      def float(value)
        text = value.to_s
        return text.sub(".0e", "e") unless text.end_with?("e+15")

        whole, fraction = text.delete_suffix("e+15").split(".")
        fraction = fraction.ljust(16, "0")
        "#{whole}#{fraction[0, 15]}.#{fraction[15..].sub(/(?<=.)0+\z/, "")}"
      end
    end
  end
end
