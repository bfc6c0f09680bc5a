/**
 * The view `bemi.changes` as an entity of TypeORM, with the questions that people ask it.
 *
 * What writes to it is refused by PostgreSQL: it is a view of several tables.
 */

import {
  EntitySchema,
  type EntitySchemaColumnOptions,
  type FindOperator,
  JsonContains,
  Not,
  Raw,
} from "typeorm";

import type { Values } from "../../context/current.js";
import { type ChangeColumns, containing, difference, type Image } from "../change.js";

/** Conditions for `where`; several are spread into one. */
export interface ChangeConditions {
  operation?: string;
  before?: FindOperator<Image>;
  after?: FindOperator<Image>;
  context?: FindOperator<Image>;
}

type Direction = "ASC" | "DESC";

/** Times first: for a feed, and for several sources. */
export interface ChangeOrder {
  committed_at: Direction;
  commit_position: Direction;
  ordinal: Direction;
  epoch: Direction;
}

/**
 * A change. Its static functions are conditions, and orders:
 *
 * ```ts
 * dataSource.getRepository(Change).find({
 *   where: { table: "todo", ...Change.updated(), ...Change.context({ user_id: 42 }) },
 *   order: Change.desc(),
 * });
 * ```
 *
 * `ChangeSchema` has to be among the entities of the data source.
 */
export class Change implements ChangeColumns {
  declare id: string;
  declare database: string | null;
  declare schema: string;
  declare table: string;
  declare primary_key: string | null;
  declare operation: string;
  declare before: Image;
  declare after: Image;
  declare context: Image;
  declare committed_at: Date;
  declare queued_at: Date;
  declare created_at: Date;
  declare transaction_id: string;
  declare position: string;
  declare commit_position: string;
  declare ordinal: number;
  declare epoch: string;
  declare source: string | null;
  declare previous_key: string | null;
  declare flags: string[] | null;
  declare rules: number | null;

  /** The columns whose values differ, each with the value before and the one after. */
  diff(): Record<string, [unknown, unknown]> {
    return difference(this.before, this.after);
  }

  static created(): { operation: string } {
    return { operation: "CREATE" };
  }

  static updated(): { operation: string } {
    return { operation: "UPDATE" };
  }

  static deleted(): { operation: string } {
    return { operation: "DELETE" };
  }

  /** Where the row had these values before. */
  static before(values: Values): { before: FindOperator<Image> } {
    return { before: contains(values) };
  }

  /** Where the row has these values since. */
  static after(values: Values): { after: FindOperator<Image> } {
    return { after: contains(values) };
  }

  /** Where the context has these values, in the form in which they are sent. */
  static context(values: Values): { context: FindOperator<Image> } {
    return { context: contains(values) };
  }

  static beforeNot(values: Values): { before: FindOperator<Image> } {
    return { before: Not(contains(values)) };
  }

  static afterNot(values: Values): { after: FindOperator<Image> } {
    return { after: Not(contains(values)) };
  }

  /** Also where there is no context. */
  static contextNot(values: Values): { context: FindOperator<Image> } {
    return { context: Not(contains(values)) };
  }

  /**
   * Updates that gave the column another value, or may have: the flag `before_unknown` says where
   * that is not known.
   */
  static fieldChanged(name: string): { operation: string; before: FindOperator<Image> } {
    // All conditions share one room of parameters: the same name there is the same value.
    const parameter = `bemi_${Buffer.from(name).toString("hex")}`;
    const changed = (before: string) => {
      const after = before.replace(/before(?="?$)/, "after");
      return `${before} -> :${parameter} is distinct from ${after} -> :${parameter}`;
    };
    return { ...Change.updated(), before: Raw(changed, { [parameter]: name }) };
  }

  /** Oldest first. */
  static asc(): ChangeOrder {
    return byTime("ASC");
  }

  /** Newest first. */
  static desc(): ChangeOrder {
    return byTime("DESC");
  }
}

function contains(values: Values): FindOperator<Image> {
  // Its JSON already: as TypeORM would make it, large integers would fail.
  return JsonContains(containing(values) as unknown as Image);
}

// As the index has them: the newest of millions are found at once.
function byTime(direction: Direction): ChangeOrder {
  return {
    committed_at: direction,
    commit_position: direction,
    ordinal: direction,
    epoch: direction,
  };
}

const TEXT: EntitySchemaColumnOptions = { type: "text" };
const NULLABLE: EntitySchemaColumnOptions = { type: "text", nullable: true };
const IMAGE: EntitySchemaColumnOptions = { type: "jsonb" };
const TIME: EntitySchemaColumnOptions = { type: "timestamptz" };
const BIGINT: EntitySchemaColumnOptions = { type: "bigint" };

/** For `entities` of a data source. No schema is ever made or altered for it. */
export const ChangeSchema = new EntitySchema<Change>({
  name: "Change",
  target: Change,
  type: "view",
  schema: "bemi",
  tableName: "changes",
  synchronize: false,
  columns: {
    id: { type: "uuid", primary: true },
    database: NULLABLE,
    schema: TEXT,
    table: TEXT,
    primary_key: NULLABLE,
    operation: TEXT,
    before: IMAGE,
    after: IMAGE,
    context: IMAGE,
    committed_at: TIME,
    queued_at: TIME,
    created_at: TIME,
    transaction_id: BIGINT,
    position: BIGINT,
    commit_position: BIGINT,
    ordinal: { type: "integer" },
    epoch: BIGINT,
    source: NULLABLE,
    previous_key: NULLABLE,
    flags: { type: "text", array: true, nullable: true },
    rules: { type: "integer", nullable: true },
  },
});
