/**
 * The context on its way between services and into jobs: what goes into headers and comes out.
 *
 * The names and forms are those of `spec/context.md`. What comes in with a request is somebody's
 * input: nothing here trusts it, it is parsed strictly or not at all.
 */
import { randomBytes, randomUUID } from "node:crypto";

import { peek } from "./current.js";
import { parse } from "./json.js";
import { isLazy } from "./lazy.js";
import type { Values } from "./state.js";
import { encode } from "./wire.js";

export const REQUEST_ID = "X-Request-ID";
export const TRACEPARENT = "traceparent";
export const CONTEXT = "bemi-context";

// Servers take 8 kB for all headers of a request, or for each.
export const REQUEST_LIMIT = 4 << 10;
// What the messages of most queues have room for.
const JOB_LIMIT = 64 << 10;

const MAX_REQUEST_ID = 128;
const NOT_IN_REQUEST_IDS = /[^A-Za-z0-9._~:/+=@-]+/g;
const FORM = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?$/;

/** The id of a trace, and the `traceparent` that it came with. */
export interface Trace {
  readonly id: string;
  readonly traceparent: string;
}

/** The member, which is never sent, with the `traceparent` of `trace_id`, to be passed on as is. */
const CAME_WITH = Symbol.for("bemi.traceparent");

/** Members of a context that say which trace it belongs to. */
export function traceValues(trace: Trace): Values {
  return { trace_id: trace.id, [CAME_WITH]: trace.traceparent };
}

/** The same members of a context that has them. */
export function traceOf(values: Values): Values {
  const { trace_id } = values;
  return { trace_id, [CAME_WITH]: (values as { [CAME_WITH]?: unknown })[CAME_WITH] };
}

/** What `outgoingHeaders` is asked to leave out. */
export interface OutgoingOptions {
  /** `false` leaves out `bemi-context`: for services that are not yours. */
  context?: boolean;
}

/**
 * Headers for a request to another service of yours, so that one request is seen across them:
 * `X-Request-ID`, `traceparent` and `bemi-context`, each where there is something to say.
 *
 * ```ts
 * await fetch(url, { method: "POST", headers: outgoingHeaders() });
 * ```
 */
export function outgoingHeaders({ context = true }: OutgoingOptions = {}): Record<string, string> {
  const headers: Record<string, string> = {};
  const now = peek();
  const requestId = readRequestId(known(now["request_id"]));
  if (requestId !== undefined) headers[REQUEST_ID] = requestId;
  const traceparent = traceparentOf(now);
  if (traceparent !== undefined) headers[TRACEPARENT] = traceparent;
  if (context && Object.keys(now).length) headers[CONTEXT] = encode(now, { limit: REQUEST_LIMIT });
  return headers;
}

/** The same for a job: `bemi-context` and `traceparent`; empty where there is no context. */
export function jobHeaders(): Record<string, string> {
  const now = peek();
  if (!Object.keys(now).length) return {};
  const headers: Record<string, string> = { [CONTEXT]: encode(now, { limit: JOB_LIMIT }) };
  const traceparent = traceparentOf(now);
  if (traceparent !== undefined) headers[TRACEPARENT] = traceparent;
  return headers;
}

/**
 * The context of a job that came with these headers, if any; `more`, such as `job` and `worker`,
 * is laid over it.
 */
export function jobContext(
  headers: Readonly<Record<string, unknown>>,
  more: Values = {},
): Record<string, unknown> {
  const values = readContext(headers[CONTEXT]);
  const trace = readTraceparent(headers[TRACEPARENT]);
  const laid = Object.entries(more).filter(([, value]) => value !== undefined && value !== null);
  return {
    ...values,
    ...(trace !== undefined && values["trace_id"] === trace.id ? traceValues(trace) : {}),
    ...Object.fromEntries(laid),
  };
}

/** What a `bemi-context` says; empty when it can't be read. */
export function readContext(header: unknown): Record<string, unknown> {
  if (typeof header !== "string") return {};
  try {
    const values = parse(header);
    return typeof values === "object" && values !== null && !Array.isArray(values)
      ? { ...values }
      : {};
  } catch {
    return {};
  }
}

/** The trace of a `traceparent`; undefined when it is not exactly of its form. */
export function readTraceparent(header: unknown): Trace | undefined {
  const found = typeof header === "string" ? FORM.exec(header) : null;
  if (found === null) return undefined;
  const [traceparent, version, id = "", parent = "", more] = found;
  if (version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0*$/.test(id) || /^0*$/.test(parent)) return undefined;
  return { id, traceparent };
}

/** A request's id, bounded, and of signs that harm nobody; undefined when nothing is left of it. */
export function readRequestId(header: unknown): string | undefined {
  const counts =
    typeof header === "string" || typeof header === "bigint" || Number.isInteger(header);
  const text = counts ? String(header) : "";
  return text.replace(NOT_IN_REQUEST_IDS, "").slice(0, MAX_REQUEST_ID) || undefined;
}

export function newRequestId(): string {
  return randomUUID();
}

// Where the API of OpenTelemetry keeps what its copies share, and where it keeps the span.
const OPEN_TELEMETRY = Symbol.for("opentelemetry.js.api.1");
const SPAN = Symbol.for("OpenTelemetry Context Key SPAN");

interface OpenTelemetry {
  context?: { active(): { getValue(key: symbol): unknown } };
}
interface Span {
  spanContext(): { traceId: string; spanId: string; traceFlags: number };
}

/** The trace of the current span of OpenTelemetry, where the application uses that. */
export function openTelemetry(): Trace | undefined {
  const api = (globalThis as { [OPEN_TELEMETRY]?: OpenTelemetry })[OPEN_TELEMETRY];
  const active = api?.context?.active().getValue(SPAN) as Span | undefined;
  if (active === undefined) return undefined;
  const span = active.spanContext();
  const flags = span.traceFlags & 1 ? "01" : "00";
  return readTraceparent(`00-${span.traceId}-${span.spanId}-${flags}`);
}

function traceparentOf(values: Values): string | undefined {
  const span = openTelemetry();
  if (span !== undefined) return span.traceparent;
  const id = known(values["trace_id"]);
  const came = readTraceparent((values as { [CAME_WITH]?: unknown })[CAME_WITH]);
  if (came !== undefined && came.id === id) return came.traceparent;
  // A trace that is known by its id only: who calls is given a name, and recorded nothing.
  return readTraceparent(`00-${String(id)}-${randomBytes(8).toString("hex")}-00`)?.traceparent;
}

/** The value of a member; undefined for one that fails, which `wire` tells of. */
function known(value: unknown): unknown {
  if (!isLazy(value)) return value;
  try {
    return value();
  } catch {
    return undefined;
  }
}
