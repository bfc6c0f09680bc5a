/**
 * Route handlers and server actions of Next.js have their context.
 *
 * It says who, where and how; what sends it is the integration of the database's library.
 */
import { withContext } from "./context/current.js";
import {
  checkOptions,
  customisedLater,
  type LaterContext,
  type Trust,
  valuesOf,
} from "./context/request.js";

/** Options of `withRouteContext` and `withActionContext`. */
export interface NextOptions<Arguments extends readonly unknown[]> {
  /** Is given what the handler is, and returns more values, such as the user; it may be async. */
  context?: LaterContext<Arguments>;
  /** Which members of the caller's context are taken over; see `bemi/express`. */
  trust?: Trust;
}

/** Options of `withRouteContext`. */
export interface RouteOptions<Arguments extends readonly unknown[]> extends NextOptions<Arguments> {
  /** The route's template; by default it is made of the path and of the route's parameters. */
  endpoint?: string;
}

/**
 * A route handler that runs in the context of its request: `endpoint`, `method`, `request_id` and
 * `trace_id`.
 *
 * ```ts
 * export const PUT = withRouteContext(async (request, { params }) => { … });
 * ```
 *
 * @throws TypeError for options that can't be meant
 */
export function withRouteContext<Arguments extends readonly unknown[], Result>(
  handle: (...request: Arguments) => Result | Promise<Result>,
  options: RouteOptions<Arguments> = {},
): (...request: Arguments) => Promise<Result> {
  checkOptions(options, { later: true });
  return async (...given) => {
    const [request, route] = given as unknown as [Request, { params?: unknown } | undefined];
    const path = new URL(request.url).pathname;
    const endpoint = options.endpoint ?? template(path, await route?.params);
    const values = valuesOf({
      headers: request.headers,
      endpoint: () => endpoint,
      method: request.method,
      trust: options.trust,
    });
    const more = await customisedLater(options.context, ...given);
    return withContext({ ...values, ...more }, async () => handle(...given));
  };
}

/**
 * A server action that runs in the context of its request: `endpoint`, which is its name, `method`,
 * `request_id` and `trace_id`.
 *
 * ```ts
 * export const complete = withActionContext("complete", async (form: FormData) => { … });
 * ```
 *
 * @throws TypeError for options that can't be meant
 */
export function withActionContext<Arguments extends readonly unknown[], Result>(
  name: string,
  action: (...given: Arguments) => Result | Promise<Result>,
  options: NextOptions<Arguments> = {},
): (...given: Arguments) => Promise<Result> {
  checkOptions(options, { later: true });
  return async (...given) => {
    const { headers } = await import("next/headers.js");
    const values = valuesOf({
      headers: await headers(),
      endpoint: () => name,
      method: "POST",
      trust: options.trust,
    });
    const more = await customisedLater(options.context, ...given);
    return withContext({ ...values, ...more }, async () => action(...given));
  };
}

/** `/todo/[id]` of `/todo/7` and `{ id: "7" }`; from the end, where parameters usually are. */
function template(path: string, params: unknown): string {
  const segments = path.split("/");
  let left = segments.length;
  for (const [name, value] of Object.entries(params ?? {}).reverse()) {
    const several = Array.isArray(value);
    const values = (several ? value : [value]).map(String);
    const at = findLast(segments.slice(0, left), values);
    if (at < 0) continue;
    segments.splice(at, values.length, several ? `[...${name}]` : `[${name}]`);
    left = at;
  }
  return segments.join("/");
}

function findLast(segments: readonly string[], values: readonly string[]): number {
  for (let at = segments.length - values.length; at > 0; at -= 1) {
    if (values.every((value, index) => matches(segments[at + index], value))) return at;
  }
  return -1;
}

/** Parameters come as they stand in the path, or decoded. */
function matches(segment: string | undefined, value: string): boolean {
  return segment === value || segment === encodeURIComponent(value);
}
