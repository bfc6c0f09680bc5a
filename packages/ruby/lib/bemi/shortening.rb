# frozen_string_literal: true

require "bemi/json"

module Bemi
  # Makes values smaller: texts and lists lose their ends, objects their last members, the largest
  # first.
  module Shortening
    ELLIPSIS = "…"
    # An ellipsis in quotes, or a number.
    SMALLEST = 16
    private_constant :ELLIPSIS, :SMALLEST

    class << self
      # Cuts the largest members of an object down to one common size, the greatest that fits.
      def cut_members(value, room, path, notes)
        names = value.to_h { |name, _| [name, Json.size(name) + 2] }
        sizes = value.transform_values { |member| Json.size(member) }
        kept = first_members(names, sizes, room - 2 - Json.size(path.join(".")))
        notes.add("truncated", path) if kept.size < value.size
        available = room - 2 - kept.sum { |name| names[name] }
        share = level(kept.map { |name| sizes[name] }, available)
        kept.to_h { |name| [name, cut(value[name], share, path + [name], notes)] }
      end

      private

      def first_members(names, sizes, left)
        names.keys.take_while { |name| (left -= names[name] + [sizes[name], SMALLEST].min) >= 0 }
      end

      # The value, made to fit into `room` characters of JSON.
      def cut(value, room, path, notes)
        return value if Json.size(value) <= room
        return cut_members(value, room, path, notes) if value.is_a?(Hash) && !value.empty?

        notes.add("truncated", path)
        case value
        when Array then first_items(value, room)
        when String then value[0, fitting(value, room - Json.size(ELLIPSIS))] + ELLIPSIS
        end
      end

      def first_items(items, room)
        items.take_while { |item| (room -= Json.size(item) + 1) >= 2 }
      end

      # The greatest size to which all larger ones can be cut so that their sum fits `room`.
      def level(sizes, room)
        rising = sizes.sort
        rising.each_with_index do |size, at|
          share = room.div(rising.size - at)
          return share if size > share

          room -= size
        end
        room + (rising.last || 0)
      end

      # How many characters of a text take at most `room` when encoded, quotes included.
      def fitting(text, room)
        longest = [text.size, [room, 0].max].min
        over = (0..longest).bsearch { |count| Json.size(text[0, count]) > room }
        [(over || (longest + 1)) - 1, 0].max
      end
    end
  end
end
