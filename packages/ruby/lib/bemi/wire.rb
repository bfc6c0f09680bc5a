# frozen_string_literal: true

require "bemi/encoder"
require "bemi/json"
require "bemi/shortening"

module Bemi
  # The form in which a context travels: the content of a logical message.
  #
  # The contract for all languages is in `spec/context.md`. Encoding never fails, since a write must
  # not fail because of its context: what can't be encoded is replaced or shortened, and listed
  # under `_bemi`.
  module Wire
    # Bytes of the whole encoded context. The worker drops what is larger.
    LIMIT = 1 << 20
    # The member of a context in which a client says what it had to alter.
    NOTES = "_bemi"

    ELLIPSIS = "…"
    MAX_NOTES = 100
    MAX_PATH = 200
    # Left free for the notes themselves, which grow while values are being cut.
    ROOM_FOR_NOTES = 2 * MAX_NOTES * (MAX_PATH + 4)
    private_constant :ELLIPSIS, :MAX_NOTES, :MAX_PATH, :ROOM_FOR_NOTES

    class << self
      # The content of the message: one JSON object, in ASCII, of at most `limit` bytes, which are
      # at least a thousand. Never raises. `redact`: members whose names look like those of secrets
      # are left out; see the contract.
      def encode(context, redact: true, limit: LIMIT)
        notes = Notes.new
        value = Encoder.new(notes, redact: redact).value(context, [], 0)
        value = {} unless value.is_a?(Hash)
        given = given_notes(value, notes)
        text = Json.dump(notes.beside(value, given))
        text.size <= limit ? text : shortened(value, given, notes, limit)
      end

      private

      def given_notes(value, notes)
        given = value.delete(NOTES) { {} }
        return given if given.is_a?(Hash)

        notes.add("replaced", [NOTES])
        {}
      end

      def shortened(value, given, notes, limit)
        cut = Shortening.cut_members(value, limit - [ROOM_FOR_NOTES, limit / 2].min, [], notes)
        # Notes that came in with the context may be the large ones.
        given = {} unless Json.size(given) < MAX_PATH
        text = Json.dump(notes.beside(cut, given))
        return text if text.size <= limit

        Json.dump(cut.merge(NOTES => notes.kinds.to_h { |kind| [kind, [ELLIPSIS]] }))
      end
    end

    # What was altered, as paths.
    class Notes
      def initialize
        @notes = {}
      end

      def add(kind, path)
        noted = (@notes[kind] ||= [])
        text = path.join(".")
        # No character takes more than the twelve of an escaped surrogate pair.
        text = text[0, MAX_PATH / 12] + ELLIPSIS if Json.size(text) > MAX_PATH
        return if noted.include?(text) || noted.size > MAX_NOTES

        noted << (noted.size < MAX_NOTES ? text : ELLIPSIS)
      end

      def kinds
        @notes.keys
      end

      # The value with its notes, behind those that came along with it.
      def beside(value, given)
        notes = given.dup
        @notes.each do |kind, paths|
          before = given[kind].is_a?(Array) ? given[kind] : []
          notes[kind] = before + (paths - before)
        end
        notes.empty? ? value : value.merge(NOTES => notes)
      end
    end
  end
end
