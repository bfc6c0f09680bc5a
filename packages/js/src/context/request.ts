/**
 * The context of one request to a web application, from what its framework tells of it.
 *
 * Knows no framework: they say how to look up a header, and who, where and how, as functions where
 * that is known later than the request begins.
 */
import { peek, type Values } from "./current.js";
import { headerOf } from "./headers.js";
import { isLazy, lazy } from "./lazy.js";
import { warn } from "./notice.js";
import {
  CONTEXT,
  newRequestId,
  openTelemetry,
  REQUEST_ID,
  readContext,
  readRequestId,
  readTraceparent,
  TRACEPARENT,
  traceOf,
  traceValues,
} from "./tracing.js";

/** Which members of its caller's context a service takes over: names, or all, or none. */
export type Trust = boolean | readonly string[];

/** What is taken from anybody: ids that tie requests together and grant nothing. */
export const TRUSTED: Trust = ["request_id", "trace_id"];

/** Options of what gives requests their context. */
export interface RequestOptions<Arguments extends readonly unknown[]> {
  /**
   * Returns more values, which win over those that are known anyway; ones that are known later,
   * such as the user, are functions. Not async.
   */
  context?: (...request: Arguments) => object | null | undefined;
  /**
   * Which members of the caller's context (its header `bemi-context`) are taken over, by name, or
   * all with `true`. By default the ids of request and trace.
   */
  trust?: Trust;
}

// What is an application's own, whoever calls it.
const OWN = ["endpoint", "method"];
// What classes of users call their key; a name that is shown to people comes last.
const KEYS = ["id", "pk", "user_id", "userId", "sub", "uid", "identity", "username"];

/**
 * `later`: the context may be waited for.
 *
 * @throws TypeError for what would fail, or do something else, with each request
 */
export function checkOptions(options: object, { later = false } = {}): void {
  const { context, trust = TRUSTED } = options as { context?: unknown; trust?: unknown };
  if (context !== undefined && typeof context !== "function") {
    throw new TypeError(`context takes a function, not ${typeof context}`);
  }
  if (!later && context !== undefined && context.constructor.name === "AsyncFunction") {
    throw new TypeError("context takes a function that is not async");
  }
  if (typeof trust !== "boolean" && !Array.isArray(trust)) {
    throw new TypeError(`trust takes names, as in trust: ["user_id"], or true`);
  }
}

/** What a framework tells of a request. */
export interface Request {
  /** Where its headers are; see `headerOf`. */
  headers: unknown;
  endpoint: () => unknown;
  method?: string | undefined;
  /** Who asks, of whatever class; see `keyOf`. The first one counts that is known. */
  users?: () => unknown[];
  trust?: Trust | undefined;
}

/**
 * The context with which a request begins. Inside of a request that has one already, as in a
 * GraphQL server's, the ids and the user stay those of the outer one, where the inner one does not
 * know better.
 */
export function valuesOf(request: Request): Values {
  const outer = peek();
  const taken = trusted((name) => headerOf(request.headers, name), request.trust ?? TRUSTED);
  const caller = taken["user_id"] ?? outer["user_id"];
  const who = () => knownUser(request.users) ?? (isLazy(caller) ? caller() : caller);
  return {
    request_id: newRequestId(),
    trace_id: () => openTelemetry()?.id,
    ...taken,
    ...(outer["request_id"] === undefined ? {} : { request_id: outer["request_id"] }),
    ...(outer["trace_id"] === undefined ? {} : traceOf(outer)),
    endpoint: request.endpoint,
    // Who it is may not be known yet when something is written first.
    user_id: lazy(who, false),
    ...(request.method === undefined ? {} : { method: request.method }),
  };
}

function knownUser(users: Request["users"]): unknown {
  const found = quietly(() =>
    users?.()
      .map(keyOf)
      .find((key) => key !== undefined),
  );
  return found;
}

type Customised<Given extends readonly unknown[]> =
  | ((...given: Given) => object | null | undefined)
  | undefined;

/** What the application's own function adds. */
export function customised<Given extends readonly unknown[]>(
  context: Customised<Given>,
  ...given: Given
): object {
  try {
    return context?.(...given) ?? {};
  } catch (error) {
    return failed(error);
  }
}

/** The same where there is time to wait for it. */
export async function customisedLater<Given extends readonly unknown[]>(
  context: LaterContext<Given> | undefined,
  ...given: Given
): Promise<object> {
  try {
    return (await context?.(...given)) ?? {};
  } catch (error) {
    return failed(error);
  }
}

/** Returns, at once or later, more values of a context. */
export type LaterContext<Given extends readonly unknown[]> = (
  ...given: Given
) => object | null | undefined | Promise<object | null | undefined>;

function failed(error: unknown): object {
  // A request must not fail because of its context.
  warn(`the function given as context failed, its values are missing: ${String(error)}`);
  return {};
}

function trusted(header: (name: string) => string | undefined, trust: Trust): Values {
  const trusts = (name: string) => (typeof trust === "boolean" ? trust : trust.includes(name));
  const more =
    typeof trust === "boolean" ? trust : trust.some((name) => !TRUSTED_NAMES.includes(name));
  const carried = more ? readContext(header(CONTEXT)) : {};
  const requestId = readRequestId(header(REQUEST_ID));
  const trace = readTraceparent(header(TRACEPARENT));
  return {
    ...Object.fromEntries(
      Object.entries(carried).filter(([name]) => trusts(name) && !OWN.includes(name)),
    ),
    ...(requestId !== undefined && trusts("request_id") ? { request_id: requestId } : {}),
    ...(trace !== undefined && trusts("trace_id") ? traceValues(trace) : {}),
  };
}

const TRUSTED_NAMES = TRUSTED as readonly string[];

/** What identifies a user, whatever class it is of; undefined when that can't be told. */
export function keyOf(user: unknown): unknown {
  if (isKey(user)) return user;
  if (typeof user !== "object" || user === null) return undefined;
  for (const name of KEYS) {
    const key = quietly(() => (user as Record<string, unknown>)[name]);
    if (isKey(key) || key === 0 || key === 0n) return key;
  }
  return undefined;
}

function isKey(value: unknown): value is string | number | bigint {
  if (typeof value === "number") return Number.isInteger(value) && value !== 0;
  return (typeof value === "string" && value !== "") || (typeof value === "bigint" && value !== 0n);
}

/** What a function of the application's returns; undefined where it fails. */
export function quietly(run: () => unknown): unknown {
  try {
    return run();
  } catch {
    return undefined;
  }
}
