/** Values of a context that are found out only when something is written. */
import { types } from "node:util";

import { state } from "./state.js";

/** A function that is called once, when its value is first wanted. */
export type Lazy = () => unknown;

/**
 * A function of the application's that is called once, when its value is first wanted. What it
 * raises is raised, and an error where it needs the value itself.
 *
 * `settles`: nothing (`undefined` or `null`) is an answer too; otherwise it is asked again.
 */
export function lazy(ask: () => unknown, settles = true): Lazy {
  let known = false;
  let asked = false;
  let value: unknown;
  const found: Lazy = () => {
    if (known) return value;
    if (asked) throw new Error("a value of the context is found out by writing with it");
    asked = true;
    try {
      value = ask();
      known = settles || (value !== undefined && value !== null);
    } finally {
      asked = false;
    }
    // It can't be waited for; that it failed must not end the program.
    if (types.isPromise(value)) value.catch(() => undefined);
    return value;
  };
  state.lazy.set(found, () => known);
  return found;
}

export function isLazy(value: unknown): value is Lazy {
  return typeof value === "function" && state.lazy.has(value);
}

/** Whether a value has still to be found out. */
export function isOpen(value: unknown): value is Lazy {
  return typeof value === "function" && state.lazy.get(value)?.() === false;
}
