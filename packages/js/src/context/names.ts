/**
 * The names of Bemi's earlier packages for JavaScript, so that a switch is an import line.
 */
import { currentContext, mergeContext, setContext } from "./current.js";

export {
  /** @deprecated the name of an earlier package; use `currentContext` */
  currentContext as currentBemiContext,
  /** @deprecated the name of an earlier package; use `mergeContext` */
  mergeContext as mergeBemiContext,
  /** @deprecated the name of an earlier package; use `setContext` */
  setContext as setBemiContext,
  /** @deprecated the name of an earlier package; use `setContext` */
  setContext as bemiContext,
};
