/** What the classes of changes have alike, whatever library maps them. */

import type { Values } from "../context/state.js";
import { encode } from "../context/wire.js";

/** A row's columns by name, or a context. */
export type Image = Record<string, unknown>;

/** The columns of the view `bemi.changes`, as `pg` reads them: integers of 64 bits are texts. */
export interface ChangeColumns {
  id: string;
  database: string | null;
  schema: string;
  table: string;
  /** As PostgreSQL writes it; of several columns a JSON array of their texts. */
  primary_key: string | null;
  operation: string;
  before: Image;
  after: Image;
  context: Image;
  committed_at: Date;
  queued_at: Date;
  created_at: Date;
  transaction_id: string;
  position: string;
  commit_position: string;
  ordinal: number;
  epoch: string;
  source: string | null;
  /** Where the change gave the row another key. */
  previous_key: string | null;
  flags: string[] | null;
  rules: number | null;
}

/** JSON that contains these values, as they are when they are sent, if it has them. */
export function containing(values: Values): string {
  return encode(values, { redact: false });
}

/** The columns whose values differ, each with the value before and the one after. */
export function difference(before: Image, after: Image): Record<string, [unknown, unknown]> {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const pairs = names.map((name): [string, [unknown, unknown]] => {
    return [name, [before[name] ?? null, after[name] ?? null]];
  });
  return Object.fromEntries(
    pairs.filter(([name, [old, now]]) => {
      const both = Object.hasOwn(before, name) && Object.hasOwn(after, name);
      return !both || JSON.stringify(old) !== JSON.stringify(now);
    }),
  );
}
