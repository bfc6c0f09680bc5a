# frozen_string_literal: true

module Bemi
  module PG
    # The statements that one connection has prepared, by their names: each as its text and what it
    # does. Of one that was not seen, it is taken to write.
    class Prepared
      FORGETTING = /discard|deallocate|prepare/i.freeze
      private_constant :FORGETTING

      # How the unnamed statement was prepared, which any other that is sent replaces, one of ours too;
      # nil where it is not known.
      attr_accessor :unnamed

      def initialize(sender)
        @sender = sender
        @known = {}
      end

      def [](name)
        @known.fetch(name.to_s) { ["", @sender.statement("execute unseen")] }
      end

      # Take the arguments with which a statement is to be prepared, and what it is: where there is
      # one of that name, it is not known yet which of the two it will be.
      def expect(args, found)
        name = args[0].to_s
        @known.key?(name) && !name.empty? ? @known.delete(name) : add(args, found)
      end

      # Take the arguments with which a statement was prepared, and what it is.
      def add(args, found)
        name = args[0].to_s
        @known[name] = found
        @unnamed = args if name.empty?
      end

      def size
        @known.size
      end

      # A text ran, or will, which may take some away, or prepare others of their names.
      def ran(sql)
        return unless FORGETTING.match?(Statements.readable(sql))

        Statements.words(sql).each do |first, *rest|
          rest.shift if first == "deallocate" && rest[0] == "prepare" && rest.size > 1
          case first
          when "deallocate", "prepare" then forget(rest[0])
          when "discard" then forget(rest[0]) if rest[0] == "all"
          end
        end
      end

      private

      def forget(name)
        return @known.clear if name == "all"

        @known.delete(name&.start_with?('"') ? name[1...-1].gsub('""', '"') : name)
      end
    end
  end
end
