/**
 * Requests of Express, and of what has its middlewares (Connect, NestJS), have their context.
 *
 * It says who, where and how; what sends it is the integration of the database's library.
 */
import type { NextFunction, Request, RequestHandler, Response } from "express";

import { withContext } from "./context/current.js";
import { pathOf } from "./context/headers.js";
import { checkOptions, customised, type RequestOptions, valuesOf } from "./context/request.js";

/** Options of `contextMiddleware`; `context` is given the request. */
export type ExpressOptions = RequestOptions<[request: Request]>;

/**
 * A middleware that sets the context of each request: `endpoint`, `method`, `request_id`,
 * `trace_id` and `user_id`, each where it is known.
 *
 * ```ts
 * app.use(contextMiddleware());
 * ```
 *
 * @throws TypeError for options that can't be meant
 */
export function contextMiddleware(options: ExpressOptions = {}): RequestHandler {
  checkOptions(options);
  return (request: Request, _response: Response, next: NextFunction) => {
    const values = valuesOf({
      headers: request,
      endpoint: () => route(request) ?? pathOf(request.originalUrl),
      method: request.method,
      users: () => users(request),
      trust: options.trust,
    });
    withContext({ ...values, ...customised(options.context, request) }, next);
  };
}

/**
 * The middleware under the name that Bemi's earlier packages have for it.
 *
 * @deprecated use `contextMiddleware({ context })`
 */
export function bemiMiddleware(context: (request: Request) => object): RequestHandler {
  return contextMiddleware({ context });
}

/** The template of the route that was taken; known only inside of it. */
function route(request: Request): string | undefined {
  const { path } = (request.route ?? {}) as { path?: unknown };
  if (typeof path !== "string") return undefined;
  // Of what is mounted, the path is below that of the mount.
  return `${request.baseUrl}${path === "/" && request.baseUrl ? "" : path}`;
}

/** Where Passport, express-jwt, Auth0 and sessions leave who asks. */
function users(request: Request): unknown[] {
  const { user, auth, oidc, session } = request as unknown as {
    user?: unknown;
    auth?: unknown;
    oidc?: { user?: unknown };
    session?: { user?: unknown };
  };
  // That may be a token.
  const payload = typeof auth === "string" ? undefined : auth;
  return [user, payload, oidc?.user, session?.user];
}
