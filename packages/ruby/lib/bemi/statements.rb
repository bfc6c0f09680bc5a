# frozen_string_literal: true

require "set"
require "strscan"

module Bemi
  # What the text that one call of a driver sends does; it may hold several statements.
  #
  # `writes`: it may change rows, or the schema. `wrappable`: a transaction block may be opened and
  # ended around it. `controls`: what it does to the transaction, in order, each with the name of
  # the savepoint where there is one. `several`: it holds more than one statement. `roles`: it may
  # change who the session's role is. `copies`: rows go over the connection besides.
  Statement = Struct.new(
    :writes, :wrappable, :several, :controls, :roles, :copies, keyword_init: true
  ) do
    def initialize(writes: false, wrappable: true, several: false, controls: [], roles: false,
                   copies: false)
      super
      controls.freeze
      freeze
    end
  end

  # Tells by its words whether a statement writes, and what it does to the open transaction.
  #
  # No parser: comments, texts and quoted names are passed over, and what is left is looked at word
  # by word. Where the words don't tell, a statement counts as one that writes, which costs a
  # message and loses nothing. What functions do that a SELECT calls can't be seen: those that the
  # application names count.
  module Statements
    WRITES = %w[insert update delete merge].to_set.freeze
    DDL = %w[
      create alter drop comment grant import reassign revoke security
    ].to_set.freeze
    SETTERS = %w[set_config].to_set.freeze
    # What `create`, `alter` and `drop` may name inside of a transaction block.
    IN_BLOCK = %w[
      aggregate cast collation column constraint conversion default domain event extension foreign
      function global group index language local materialized operator or owned policy procedural
      procedure publication recursive role routine rule schema sequence server statistics table temp
      temporary text transform trigger trusted type unique unlogged user view
    ].to_set.freeze

    # Statements that need no second look: one alone, whose first word says everything.
    PLAIN = /\A[[:space:]]*(insert|update|delete|select)\b/i.freeze
    END_OF_TEXT = /\G;[[:space:]]*\z/.freeze
    # What a SELECT may be that says more: into a table, or setting a role.
    TELLING = /into|set_config/i.freeze

    LONGEST_KEPT = 4096
    MOST_KEPT = 4096
    NONE = Set.new.freeze
    READ = Statement.new
    WRITE = Statement.new(writes: true)

    @kept = {}
    @lock = Mutex.new

    class << self
      # What a statement does. `functions`: names in lower case that count as writes when called.
      def classify(text, functions = NONE)
        text = readable(text)
        if (plain = PLAIN.match(text)) && alone?(text)
          return WRITE unless plain[1].casecmp?("select")
          return READ if functions.empty? && !TELLING.match?(text)
        end
        return classified(text, functions) if text.size > LONGEST_KEPT

        @lock.synchronize { @kept[[text, functions]] } || keep(text, functions)
      end

      # As characters, whatever encoding it claims to be in.
      def readable(text)
        return text if text.encoding == Encoding::UTF_8 && text.valid_encoding?

        text = text.b.force_encoding(Encoding::UTF_8) if text.encoding == Encoding::BINARY
        text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace).scrub
      rescue EncodingError # of an encoding that Ruby knows by its name alone
        text.b.force_encoding(Encoding::UTF_8).scrub
      end

      # The words of each statement of a text, in lower case; names as `"name"`.
      def words(text)
        Words.statements(readable(text))
      end

      # Whether there is a `$1` or its like in a text.
      def parameters?(text)
        words(text).any? do |words|
          words.each_cons(2).any? { |mark, after| mark == "$" && after.match?(/\A\d/) }
        end
      end

      private

      def alone?(text)
        at = text.index(";")
        at.nil? || END_OF_TEXT.match?(text, at)
      end

      def keep(text, functions)
        found = classified(text, functions)
        @lock.synchronize do
          @kept.clear if @kept.size >= MOST_KEPT
          @kept[[text.dup.freeze, functions]] = found
        end
        found
      end

      def classified(text, functions)
        found = Words.statements(text).reject(&:empty?).map { |words| one(words, functions) }
        return found[0] if found.size == 1

        controls = found.flat_map(&:controls)
        Statement.new(
          writes: found.any?(&:writes), wrappable: controls.empty? && found.all?(&:wrappable),
          several: found.size > 1, controls: controls, roles: found.any?(&:roles),
          copies: found.any?(&:copies)
        )
      end

      def one(words, functions)
        words = words.drop_while { |word| word == "(" }
        return READ if words.empty?

        control = control(words)
        return Statement.new(wrappable: false, controls: [control]) if control

        known(words, functions) || (calls?(words, functions) ? WRITE : READ)
      end

      # What the words say; nil where all depends on the functions that are called.
      def known(words, functions)
        case first = words[0]
        when "insert", "update", "delete", "merge", "truncate" then WRITE
        when "with" then WRITE if holds_write?(words)
        when "explain" then WRITE if explain_writes?(words)
        when "copy" then Statement.new(writes: copy_writes?(words), copies: true)
        when "select" then known_select(words, functions)
        # They may commit inside, which a block around them would forbid.
        when "do", "call" then Statement.new(writes: true, wrappable: false)
        when "execute" then WRITE # a prepared statement, by its name alone
        when *DDL then ddl(words)
        when "values", "table", "declare", "fetch" then nil
        # vacuum, set, show, listen, …: nothing that a context could belong to.
        else Statement.new(wrappable: false, roles: sets_role?(words, first))
        end
      end

      def known_select(words, functions)
        return WRITE if words.include?("into")

        Statement.new(writes: calls?(words, functions), roles: true) if calls?(words, SETTERS)
      end

      def explain_writes?(words)
        words.any? { |word| %w[analyze analyse].include?(word) } &&
          (holds_write?(words) || words.include?("execute") || words.include?("create"))
      end

      def copy_writes?(words)
        copies_from?(words) || holds_write?(words)
      end

      def ddl(words)
        anywhere = !%w[create alter drop].include?(words[0]) || IN_BLOCK.include?(words[1])
        Statement.new(writes: true, wrappable: anywhere && !words.include?("concurrently"))
      end

      def control(words)
        case words.first(2)
        in ["begin", *] | %w[start transaction] then [:begin, ""]
        in %w[prepare transaction] then [:end, ""]
        in ["commit" | "end" | "rollback" | "abort", "prepared"] then nil
        in ["commit" | "end" | "abort" | "rollback", *] then ending(words)
        in ["savepoint", *] then [:savepoint, savepoint(words.drop(1))]
        in ["release", *] then [:release, savepoint(words.drop(1))]
        else nil
        end
      end

      def ending(words)
        rest = words.drop(1).reject { |word| %w[work transaction].include?(word) }
        return [:rollback_to, savepoint(rest.drop(1))] if words[0] == "rollback" && rest[0] == "to"

        [%w[commit end].include?(words[0]) ? :end : :rollback, ""]
      end

      def savepoint(words)
        words = words.drop(1) if words.size > 1 && words[0] == "savepoint"
        name = words[0] || ""
        name.start_with?('"') ? (name[1...-1] || "").gsub('""', '"') : name
      end

      # Whether a part of it may write; `for update` and `for no key update` do not.
      def holds_write?(words)
        words.each_cons(2).any? do |before, word|
          WRITES.include?(word) && !["for", "key", "."].include?(before)
        end
      end

      # SET ROLE and SET SESSION AUTHORIZATION, and what takes them back.
      def sets_role?(words, first)
        return true if %w[reset discard].include?(first)

        return false unless first == "set"

        words[1, 2].any? { |word| %w[role authorization session_authorization].include?(word) } ||
          words[2, 2] == %w[session authorization]
      end

      def copies_from?(words)
        depth = 0
        words.each do |word|
          case word
          when "(" then depth += 1
          when ")" then depth -= 1
          when "from", "to" then return word == "from" if depth.zero?
          end
        end
        false
      end

      def calls?(words, functions)
        return false if functions.empty?

        words.each_cons(2).any? do |word, after|
          after == "(" && functions.include?(word.start_with?('"') ? word[1...-1] : word)
        end
      end
    end

    # Takes a text apart into the words of its statements.
    module Words
      BLANK = /(?:[[:space:]\x1c-\x1f]|--[^\n\r]*)+/.freeze
      COMMENT = %r{/\*}.freeze
      EDGE = %r{/\*|\*/}.freeze
      # Possessive, since a text may have megabytes.
      TEXT = /[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*(?:'|\z)|'[^']*+(?:''[^']*+)*+(?:'|\z)/m.freeze
      NAME = /"[^"]*+(?:""[^"]*+)*+(?:"|\z)/.freeze
      DOLLAR = /\$(?:[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_]*)?\$/.freeze
      WORD = /[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_$]*/.freeze
      private_constant(*constants(false))

      class << self
        # Each statement's words in lower case, names as `"name"`, marks as they are.
        def statements(text)
          statements = [[]]
          scanner = StringScanner.new(text)
          until scanner.eos?
            word = next_word(scanner)
            if word == ";" then statements << []
            elsif word then statements.last << word
            end
          end
          statements
        end

        private

        def next_word(scanner)
          if scanner.skip(BLANK) then nil
          elsif scanner.skip(COMMENT) then skip_comment(scanner)
          elsif scanner.skip(TEXT) then "'"
          elsif scanner.scan(NAME) || (dollar = scanner.scan(DOLLAR))
            dollar ? skip_dollar(scanner, dollar) : scanner.matched
          elsif (word = scanner.scan(WORD)) then word.downcase
          else scanner.getch
          end
        end

        def skip_comment(scanner)
          depth = 1
          while depth.positive?
            break scanner.terminate unless scanner.skip_until(EDGE)

            depth += scanner.matched == "/*" ? 1 : -1
          end
          nil
        end

        def skip_dollar(scanner, dollar)
          scanner.skip_until(Regexp.new(Regexp.escape(dollar))) || scanner.terminate
          "'"
        end
      end
    end
    private_constant :Words
  end
end
