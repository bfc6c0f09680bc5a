# frozen_string_literal: true

module Bemi
  module PG
    # The statements that one connection has prepared, by their names: each as its text and what it
    # does. Of one that was not seen, it is taken to write.
    class Prepared
      FORGETTING = /\A\s*(?:discard\s+all|deallocate\s+(?:prepare\s+)?(?:"(?<quoted>(?:[^"]|"")*)"
        |(?<name>\w+)))/ix.freeze
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

      # Take the arguments with which a statement was prepared, and what it is.
      def add(args, found)
        name = args[0].to_s
        @known[name] = found
        @unnamed = args if name.empty?
      end

      def size
        @known.size
      end

      # A statement ran, which may have taken some away.
      def ran(sql)
        return unless (found = FORGETTING.match(sql))

        name = found[:quoted]&.gsub('""', '"') || found[:name]&.downcase
        [nil, "all"].include?(name) ? @known.clear : @known.delete(name)
      end
    end
  end
end
