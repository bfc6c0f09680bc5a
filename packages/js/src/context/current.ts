/**
 * The context that is current here and now: per request, per job, per `withContext`.
 *
 * It follows AsyncLocalStorage: what is called, awaited or scheduled from inside of a block sees
 * the block's. Nothing here talks to a database.
 */
import { types } from "node:util";

import { isLazy, isOpen, lazy } from "./lazy.js";
import { type Scope, state, type Values } from "./state.js";

export type { Values } from "./state.js";

const EMPTY: Values = Object.freeze({});

/**
 * Runs a function with values added to the current context; inner ones win over outer ones.
 *
 * ```ts
 * await withContext({ user_id: 42, endpoint: "/todo/complete" }, async () => { … });
 * ```
 *
 * A function as a value stands for what it returns: it is called when the context is first sent,
 * once, and not at all where nothing is written. It can't be async. Where it returns nothing there
 * is no such value.
 *
 * A query that a builder makes runs when somebody waits for it: where the function returns one, it
 * is run here, and a promise is returned.
 *
 * @returns what the function returns, a promise too
 * @throws TypeError where `values` is no object
 */
export function withContext<Result>(values: object | null | undefined, run: () => Result): Result {
  return runWith({ ...peek(), ...lazily(values) }, run);
}

/**
 * Replaces the whole current context, for the rest of the innermost `withContext` (a request's, a
 * job's) and all that runs in it. Outside of any, for what follows here.
 *
 * Requests need one each, which a framework's integration makes: what they set in a `withContext`
 * around the whole server would be seen by all of them.
 *
 * @throws TypeError where `values` is no object
 */
export function setContext(values: object | null | undefined): void {
  swap(lazily(values));
}

/**
 * Adds values to the current context, for as long and as far as `setContext` would; a name that is
 * there already gets the new value.
 *
 * @throws TypeError where `values` is no object
 */
export function mergeContext(values: object | null | undefined): void {
  swap({ ...peek(), ...lazily(values) });
}

/** A copy of the current context; empty when there is none. */
export function currentContext(): Record<string, unknown> {
  return { ...peek() };
}

/** Empties the current context. */
export function clearContext(): void {
  swap(EMPTY);
}

/** The current context itself: the same object as long as it has not changed. */
export function peek(): Values {
  return state.scopes.getStore()?.values ?? EMPTY;
}

/** Makes what `peek` once gave the current context again; the one before. */
export function swap(values: Values): Values {
  const scope = state.scopes.getStore();
  const before = scope?.values ?? EMPTY;
  if (scope !== undefined && !scope.entered) scope.values = values;
  else if (values !== before) state.scopes.enterWith({ values, entered: true });
  return before;
}

/** Runs a function with what `peek` once gave as the whole context. */
export function runWith<Result>(values: Values, run: () => Result): Result {
  return state.scopes.run({ values }, () => begun(run()));
}

/** With what only begins when somebody waits for it: he will not be in this context. */
function begun<Result>(result: Result): Result {
  if (types.isPromise(result) || !isThenable(result)) return result;
  return new Promise((resolve, reject) => result.then(resolve, reject)) as Result;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === "function";
}

/**
 * Lays values over the current context for what follows here, and is called or awaited by it: for
 * frameworks that call nothing that a block could be around.
 */
export function enter(values: Values): void {
  state.scopes.enterWith({ values: { ...peek(), ...lazily(values) } });
}

/** A function that runs in the context of here and now, whoever calls it. */
export function bind<Given extends unknown[], Result>(
  run: (...given: Given) => Result,
): (...given: Given) => Result {
  const scope = state.scopes.getStore();
  return (...given) => state.scopes.run(scope as Scope, run, ...given);
}

/** Runs a function in no context at all: what it begins and leaves behind is nobody's. */
export function outside<Result>(run: () => Result): Result {
  return state.scopes.run(undefined as unknown as Scope, run);
}

/**
 * Finds out values that are functions, here and now: where the application called, and not later,
 * where a pool or a queue goes on in somebody else's name.
 */
export function settle(values: Values): Values {
  for (const value of Object.values(values)) {
    if (!isOpen(value)) continue;
    try {
      value();
    } catch {
      // Asked again when it is encoded, which tells of it.
    }
  }
  return values;
}

/** With functions wrapped, so that all who share the context share their values. */
function lazily(values: object | null | undefined): Values {
  if (values === null || values === undefined) return EMPTY;
  if (typeof values !== "object" || Array.isArray(values)) {
    throw new TypeError(`a context is an object of values by name, not ${describe(values)}`);
  }
  const wrapped: Record<string, unknown> = { ...values };
  for (const [name, value] of Object.entries(wrapped)) {
    if (!isFunction(value) || isLazy(value)) continue;
    // Not by assignment, to which a member called `__proto__` is none.
    Object.defineProperty(wrapped, name, { value: lazy(value), enumerable: true });
  }
  return wrapped;
}

function describe(value: unknown): string {
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}

function isFunction(value: unknown): value is () => unknown {
  return typeof value === "function" && !/^class\b/.test(Function.prototype.toString.call(value));
}
