/** What ways of reading changes have alike, whatever library maps them. */

import { isDeepStrictEqual } from "node:util";

/** A row, or a context: values by name. */
export type Image = Record<string, unknown>;

/**
 * The columns whose values differ, each with the value before and the one after.
 *
 * Of a row that was created or deleted, and of an update whose old row is not known (it has the
 * flag `before_unknown`), that is all of its columns, with undefined on the other side.
 */
export function difference(before: Image, after: Image): Record<string, [unknown, unknown]> {
  const found = Object.keys({ ...before, ...after })
    .filter(
      (name) =>
        !(name in before && name in after) || !isDeepStrictEqual(before[name], after[name]),
    )
    .map((name): [string, [unknown, unknown]] => [name, [before[name], after[name]]]);
  return Object.fromEntries(found);
}
