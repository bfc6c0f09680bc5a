# frozen_string_literal: true

require "active_record"
require "bemi"
require "bemi/row_key"

module Bemi
  # The questions that people ask a history, as scopes of a class that maps `bemi.changes`.
  module ChangeQueryHelpers
    extend ::ActiveSupport::Concern

    # As the index has them: the newest of millions are found at once.
    BY_TIME = %i[committed_at commit_position ordinal epoch].freeze
    private_constant :BY_TIME

    included do
      scope :created, -> { where(operation: "CREATE") }
      scope :updated, -> { where(operation: "UPDATE") }
      scope :deleted, -> { where(operation: "DELETE") }
      # Oldest first, and newest first, by the times of the commits.
      scope :asc, -> { order(BY_TIME.to_h { |column| [column, :asc] }) }
      scope :desc, -> { order(BY_TIME.to_h { |column| [column, :desc] }) }

      # Rows that had, or got, these values: `after(done: true)`. And what the context contains,
      # nested too, whose values are turned into JSON as when they are sent.
      {
        before: :to_json.to_proc, after: :to_json.to_proc,
        context: ->(values) { Wire.encode(values, redact: false) }
      }.each do |column, encoded|
        contains = %(.#{column} @> ?::jsonb)
        scope column, ->(values) { where(quoted_table_name + contains, encoded.call(values)) }
        # Also where there is nothing.
        scope :"#{column}_not", lambda { |values|
          where("not #{quoted_table_name}#{contains}", encoded.call(values))
        }
      end

      # Updates that gave the column another value, or may have: the flag `before_unknown` says
      # where that is not known.
      scope :field_changed, lambda { |name|
        images = %w[before after].map { |column| "#{quoted_table_name}.#{column} -> :name" }
        updated.where(images.join(" is distinct from "), name: name.to_s)
      }

      # The changes of one record's row, in the order in which its states followed; the one that
      # gave it another key is in the history of both. Raises Bemi::Error where there is none yet.
      scope :for_record, lambda { |record|
        row = RowKey.new(record)
        keys = where(primary_key: row.text).or(where(previous_key: row.text))
        keys.where(schema: row.schema, table: row.table).order(:epoch, :commit_position, :ordinal)
      }
    end

    # The columns whose values differ, each with the value before and the one after. Of a row that
    # was created or deleted, and of an update whose old row is not known, that is all of its
    # columns, with nil on the other side.
    def diff
      before.merge(after).keys.each_with_object({}) do |name, found|
        next if before.key?(name) && after.key?(name) && before[name].eql?(after[name])

        found[name] = [before[name], after[name]]
      end
    end

    # A role that may write to the store must not do it by accident.
    def readonly?
      true
    end
  end

  # Adds `bemi_changes` to a model.
  module RecordQueryHelpers
    # The history of this row, oldest first: `todo.bemi_changes.updated`.
    def bemi_changes
      Change.for_record(self)
    end
  end

  # A change, with the columns of the view `bemi.changes`. Where the history is in a database of its
  # own: `Bemi::Change.establish_connection(…)`, or `connects_to` in a subclass of your own that
  # includes `Bemi::ChangeQueryHelpers`.
  #
  #     Bemi::Change.updated.context(user_id: 42).after(done: true).desc.limit(10)
  class Change < ::ActiveRecord::Base
    self.table_name = "bemi.changes"
    self.primary_key = "id"

    include ChangeQueryHelpers
  end
end
