/**
 * Sends the current context through Drizzle, on `drizzle-orm/node-postgres`, and reads the history
 * with it: `changes` is the view, and what people ask of it are conditions.
 */

import { type AnyColumn, and, asc, desc, eq, not, type SQL, sql } from "drizzle-orm";
import { bigint, integer, jsonb, pgSchema, text, timestamp, uuid } from "drizzle-orm/pg-core";

import { containing, difference, type Image } from "./internal/change.js";
import { install as installPool, type Options } from "./pg.js";

export type { Options } from "./context/sender.js";

/**
 * Makes all connections of a database of `drizzle-orm/node-postgres` send the context of their
 * transactions.
 *
 * @param database - what `drizzle(…)` gives.
 * @param options - see {@link Options}.
 * @returns the same.
 * @throws TypeError for another driver's, and for an option that there is not.
 */
export function install<Target extends { $client: object }>(
  database: Target,
  options: Options = {},
): Target {
  installPool(database.$client, options);
  return database;
}

/** `install` under its name in Bemi's earlier package. */
export const withBemi = install;

/** The view `changes` in a schema of the destination; integers of eight bytes are bigints. */
export function changesIn(schema: string) {
  return pgSchema(schema)
    .view("changes", {
      id: uuid("id").notNull(),
      database: text("database").notNull(),
      schema: text("schema").notNull(),
      table: text("table").notNull(),
      primaryKey: text("primary_key"),
      operation: text("operation", {
        enum: ["CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"],
      }).notNull(),
      before: jsonb("before").$type<Image>().notNull(),
      after: jsonb("after").$type<Image>().notNull(),
      context: jsonb("context").$type<Image>().notNull(),
      committedAt: timestamp("committed_at", { withTimezone: true }).notNull(),
      queuedAt: timestamp("queued_at", { withTimezone: true }).notNull(),
      createdAt: timestamp("created_at", { withTimezone: true }).notNull(),
      transactionId: bigint("transaction_id", { mode: "bigint" }).notNull(),
      position: bigint("position", { mode: "bigint" }).notNull(),
      commitPosition: bigint("commit_position", { mode: "bigint" }).notNull(),
      ordinal: integer("ordinal").notNull(),
      epoch: bigint("epoch", { mode: "bigint" }).notNull(),
      source: text("source").notNull(),
      previousKey: text("previous_key"),
      flags: text("flags").array(),
      rules: integer("rules"),
    })
    .existing();
}

/** The view `bemi.changes`. */
export const changes = changesIn("bemi");

/** A row of {@link changes}. */
export type Change = typeof changes.$inferSelect;

export const created = (): SQL => eq(changes.operation, "CREATE");
export const updated = (): SQL => eq(changes.operation, "UPDATE");
export const deleted = (): SQL => eq(changes.operation, "DELETE");

/** Those whose row before them had these values. */
export const before = (values: Image): SQL => contains(changes.before, JSON.stringify(values));
/** Those whose row after them had these values. */
export const after = (values: Image): SQL => contains(changes.after, JSON.stringify(values));
/** Those whose context has these members; values become JSON as they do when they are sent. */
export const context = (values: Image): SQL => contains(changes.context, containing(values));

export const beforeNot = (values: Image): SQL => not(before(values));
export const afterNot = (values: Image): SQL => not(after(values));
/** Also where there is no context. */
export const contextNot = (values: Image): SQL => not(context(values));

/** Updates that gave the column another value, or may have: the flag `before_unknown` says where
 * that is not known. */
export const fieldChanged = (name: string): SQL =>
  and(
    updated(),
    sql`${changes.before} -> ${name} is distinct from ${changes.after} -> ${name}`,
  ) as SQL;

// As the index has them: the newest of millions are found at once.
const BY_TIME = [changes.committedAt, changes.commitPosition, changes.ordinal, changes.epoch];

/** For `orderBy(...oldestFirst())`, by the time of their commits. */
export const oldestFirst = (): SQL[] => BY_TIME.map((column) => asc(column));
/** For `orderBy(...newestFirst())`. */
export const newestFirst = (): SQL[] => BY_TIME.map((column) => desc(column));

/** The columns in which a change's rows differ, each with the value before and the one after. */
export function diff(change: Pick<Change, "before" | "after">): Record<string, [unknown, unknown]> {
  return difference(change.before, change.after);
}

function contains(column: AnyColumn, json: string): SQL {
  return sql`${column} @> ${json}::jsonb`;
}
