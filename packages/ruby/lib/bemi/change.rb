# frozen_string_literal: true

require "active_record"
require "bemi"
require "bemi/row_key"

module Bemi
  # The questions that people ask a history, as scopes of a class that maps `bemi.changes`.
  module ChangeQueryHelpers
    extend ::ActiveSupport::Concern

    included do
      scope :created, -> { where(operation: "CREATE") }
      scope :updated, -> { where(operation: "UPDATE") }
      scope :deleted, -> { where(operation: "DELETE") }
      # Oldest first, and newest first, by the times of the commits: as the index has them.
      scope :asc, -> { order(by_time(:asc)) }
      scope :desc, -> { order(by_time(:desc)) }

      # Rows that had, or got, these values: `after(done: true)`.
      %i[before after].each do |column|
        scope column, ->(values) { where(contains(column), values.to_json) }
        scope :"#{column}_not", ->(values) { where("not #{contains(column)}", values.to_json) }
      end

      # What the context contains, nested too. Values are turned into JSON as when they are sent.
      scope :context, ->(values) { where(contains(:context), Wire.encode(values, redact: false)) }
      # Also where there is no context.
      scope :context_not, lambda { |values|
        where("not #{contains(:context)}", Wire.encode(values, redact: false))
      }

      # Updates that gave the column another value, or may have: the flag `before_unknown` says
      # where that is not known.
      scope :field_changed, lambda { |name|
        images = "%s -> :name is distinct from %s -> :name"
        updated.where(format(images, quoted(:before), quoted(:after)), name: name.to_s)
      }

      # The changes of one record's row, in the order in which its states followed; the one that
      # gave it another key is in the history of both. Raises Bemi::Error where there is none yet.
      scope :for_record, lambda { |record|
        key = RowKey.new(record)
        where(schema: key.schema, table: key.table)
          .merge(unscoped.where(primary_key: key.text).or(unscoped.where(previous_key: key.text)))
          .order(:epoch, :commit_position, :ordinal)
      }
    end

    class_methods do
      private

      def by_time(direction)
        { committed_at: direction, commit_position: direction, ordinal: direction, epoch: direction }
      end

      def contains(column)
        "#{quoted(column)} @> ?::jsonb"
      end

      def quoted(column)
        "#{quoted_table_name}.#{connection.quote_column_name(column)}"
      end
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
