# frozen_string_literal: true

module Bemi
  # JSON in ASCII, since a server in another encoding refuses characters that it does not have, and
  # the application's transaction would fail. Of what `Wire` gives only, and byte for byte what the
  # other languages write, whatever an application has done to `to_json`.
  module Json
    SHORT = {
      '"' => '\"', "\\" => "\\\\", "\n" => '\n', "\r" => '\r', "\t" => '\t', "\f" => '\f', "\b" => '\b'
    }.freeze
    ESCAPED = /["\\]|[^ -~]/.freeze
    private_constant :SHORT, :ESCAPED

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

      private

      # The others have an exponent from the one after this on.
      def float(value)
        text = value.to_s
        return text.sub(".0e", "e") unless text.end_with?("e+15")

        whole, fraction = text.delete_suffix("e+15").split(".")
        fraction = fraction.ljust(16, "0")
        "#{whole}#{fraction[0, 15]}.#{fraction[15..].sub(/(?<=.)0+\z/, "")}"
      end

      def text(value)
        return "\"#{value}\"" unless ESCAPED.match?(value)

        "\"#{value.gsub(ESCAPED) { |sign| SHORT[sign] || escaped(sign.ord) }}\""
      end

      def escaped(code)
        return format('\u%04x', code) if code < 0x10000

        code -= 0x10000
        format('\u%04x\u%04x', 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff))
      end
    end
  end
end
