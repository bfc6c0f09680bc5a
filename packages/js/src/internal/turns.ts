/**
 * Turns of the event loop, each for callers of one context only.
 *
 * Prisma collects what is asked for until the end of a turn, and then runs all of it in the context
 * of who asked first.
 */

import { state } from "../context/state.js";

interface Waiting {
  readonly scope: object | undefined;
  readonly go: () => void;
}

let taken: { readonly scope: object | undefined } | undefined;
let waiting: Waiting[] = [];

/** Nothing to wait for, or what is resolved when it is the caller's turn. */
export function turn(): Promise<void> | undefined {
  const scope = state.scopes.getStore();
  if (taken === undefined) {
    take(scope);
    return undefined;
  }
  if (taken.scope === scope) return undefined;
  return new Promise((go) => waiting.push({ scope, go }));
}

function take(scope: object | undefined): void {
  taken = { scope };
  // By then all ticks and promises of this turn have run, and Prisma with them.
  setImmediate(next);
}

function next(): void {
  taken = undefined;
  const first = waiting[0];
  if (first === undefined) return;
  take(first.scope);
  const going = waiting.filter((each) => each.scope === first.scope);
  waiting = waiting.filter((each) => each.scope !== first.scope);
  for (const { go } of going) go();
}
