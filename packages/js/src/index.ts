/**
 * Who changed what in PostgreSQL, where and why: the context that an application attaches to what
 * it changes. What sends it is the integration of the database's library, such as `bemi/pg`.
 */
export {
  clearContext,
  currentContext,
  mergeContext,
  setContext,
  withContext,
  type Values,
} from "./context/current.js";
export type { Options } from "./context/sender.js";
export {
  jobContext,
  jobHeaders,
  outgoingHeaders,
  type OutgoingOptions,
} from "./context/tracing.js";
export {
  bemiContext,
  currentBemiContext,
  mergeBemiContext,
  setBemiContext,
} from "./context/names.js";
