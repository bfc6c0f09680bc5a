# frozen_string_literal: true

require "digest"
require "json"
require "bigdecimal"

module Bemi
  # Where a record is, as the history has it: its schema, its table, and its key as PostgreSQL writes
  # it, in UTC.
  class RowKey
    # Bytes of a primary key's text that an index entry is sure to take.
    MAX_KEY = 2000
    private_constant :MAX_KEY

    # Raises Bemi::Error for a record that has no key, was never stored, or has one whose text takes
    # more than the value to know, such as an interval.
    def initialize(record)
      @record = record
      @model = record.class
      return if record.persisted? || record.destroyed?

      raise Error, "this #{@model.name} has no history, since it was never stored; save it first"
    end

    def schema
      names.size > 1 ? names[0] : "public"
    end

    def table
      names.last
    end

    # One value's text, or a JSON array of several; a digest of what no index would take.
    def text
      texts = Array(@model.primary_key).map { |name| text_of(name) }
      raise Error, "#{@model.name} has no primary key" if texts.empty?

      key = texts.size == 1 ? texts[0] : JSON.generate(texts)
      key.bytesize <= MAX_KEY ? key : "sha256:#{Digest::SHA256.hexdigest(key)}"
    end

    private

    def names
      @model.table_name.split(".").map { |name| name.delete('"') }
    end

    def text_of(name)
      type = @model.type_for_attribute(name)
      value = @record.attribute_in_database(name)
      value = @record.read_attribute(name) if value.nil?
      written(type.serialize(value), @model.columns_hash[name]&.scale)
    end

    def written(value, scale)
      case value
      when true then "t"
      when false then "f"
      when String, Integer then value.to_s
      when BigDecimal then decimal(value, scale)
      when Time, DateTime then moment(value.to_time.utc)
      when Date then value.iso8601
      else binary(value)
      end
    end

    def decimal(value, scale)
      return value.to_s("F").sub(/\.0\z/, "") unless scale&.positive?

      whole, fraction = value.round(scale).to_s("F").split(".")
      "#{whole}.#{fraction.ljust(scale, "0")}"
    end

    def moment(value)
      fraction = value.usec.zero? ? "" : value.strftime(".%6N").sub(/0+\z/, "")
      "#{value.strftime("%Y-%m-%d %H:%M:%S")}#{fraction}"
    end

    def binary(value)
      if defined?(::ActiveModel::Type::Binary::Data) && value.is_a?(::ActiveModel::Type::Binary::Data)
        return "\\x#{value.to_s.unpack1("H*")}"
      end

      raise Error, "the text of a key of the type #{value.class} is not known; " \
                   "look for the change's primary_key by its text"
    end
  end
end
