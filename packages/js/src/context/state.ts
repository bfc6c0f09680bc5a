/**
 * What there is only one of in a program, however many copies of this package are loaded: ESM and
 * CommonJS, or two versions side by side.
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** Values of a context, by name. Never altered in place once it is current. */
export type Values = Readonly<Record<string, unknown>>;

/** What is current, for as long as one call of `withContext` runs. */
export interface Scope {
  values: Values;
  /** Entered outside of any such call: what sees it may be many requests, so it is never altered. */
  readonly entered?: boolean;
}

interface State {
  readonly scopes: AsyncLocalStorage<Scope>;
  /** What `warnOnce` has said. */
  readonly told: Set<string>;
  /** Functions that `lazy` made, and how to ask whether they have their value. */
  readonly lazy: WeakMap<object, () => boolean>;
}

// The number changes when the shape of the state does, so that copies that differ keep apart.
const KEY = Symbol.for("bemi.state.1");
const shared = globalThis as { [KEY]?: State };

export const state: State = (shared[KEY] ??= {
  scopes: new AsyncLocalStorage<Scope>(),
  told: new Set<string>(),
  lazy: new WeakMap<object, () => boolean>(),
});
