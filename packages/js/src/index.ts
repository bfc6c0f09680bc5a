/**
 * Who changed what in PostgreSQL, where and why: the context that an application attaches to what
 * it changes. What sends it is the integration of the database's library, such as `bemi/pg`.
 */
export {
  clearContext,
  currentContext,
  mergeContext,
  setContext,
  type Values,
  withContext,
} from "./context/current.js";
export {
  bemiContext,
  currentBemiContext,
  mergeBemiContext,
  setBemiContext,
} from "./context/names.js";
export type { Options } from "./context/sender.js";
export {
  jobContext,
  jobHeaders,
  type OutgoingOptions,
  outgoingHeaders,
} from "./context/tracing.js";
