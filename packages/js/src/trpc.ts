/**
 * Procedures of tRPC have their context.
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

/** What is read of a procedure's call. */
export interface ProcedureCall {
  /** What the application's `createContext` made. */
  ctx: unknown;
  path: string;
}

/** Options of `contextMiddleware`. */
export interface TrpcOptions<Call extends ProcedureCall> {
  /** Is given the call, and returns more values, which win; it may be async. */
  context?: LaterContext<[call: Call]>;
  /** Which members of the caller's context are taken over; see `bemi/express`. */
  trust?: Trust;
}

/**
 * A middleware that sets the context of each call: `endpoint`, the procedure's path, and
 * `request_id`, `trace_id`, `method` and `user_id`, each where it is known: the request is looked
 * for in `ctx.req` (or `ctx.headers`), the user in `ctx.user`, `ctx.session.user` and `ctx.auth`.
 *
 * ```ts
 * const procedure = t.procedure.use(contextMiddleware());
 * ```
 *
 * @throws TypeError for options that can't be meant
 */
export function contextMiddleware<Call extends ProcedureCall = ProcedureCall>(
  options: TrpcOptions<Call> = {},
): <Result>(call: Call & { next(): Promise<Result> }) => Promise<Result> {
  checkOptions(options, { later: true });
  return async (call) => {
    const ctx = (call.ctx ?? {}) as {
      req?: { method?: unknown };
      headers?: unknown;
      user?: unknown;
      session?: { user?: unknown } | null;
      auth?: unknown;
    };
    const method = ctx.req?.method;
    const values = valuesOf({
      headers: ctx.req ?? ctx.headers,
      endpoint: () => call.path,
      method: typeof method === "string" ? method : undefined,
      users: () => [ctx.user, ctx.session?.user, ctx.auth],
      trust: options.trust,
    });
    const more = await customisedLater(options.context, call);
    return withContext({ ...values, ...more }, () => call.next());
  };
}

/**
 * The middleware under the name that Bemi's earlier packages have for it.
 *
 * @deprecated use `contextMiddleware({ context })`
 */
export function bemiTRPCMiddleware<Call extends ProcedureCall = ProcedureCall>(
  context: LaterContext<[call: Call]>,
): <Result>(call: Call & { next(): Promise<Result> }) => Promise<Result> {
  return contextMiddleware({ context });
}
