/** What an application is told of contexts that can't be sent: once, and without harm. */
import { state } from "./state.js";

/** Applications have many connections: the first one says it, as a warning of the process. */
export function warnOnce(message: string): void {
  if (state.told.has(message)) return;
  state.told.add(message);
  warn(message);
}

/** A warning of the process, of the type `BemiWarning`; its text begins with `bemi: `. */
export function warn(message: string): void {
  process.emitWarning(`bemi: ${message}`, "BemiWarning");
}
