/**
 * Requests of Fastify have their context.
 *
 * It says who, where and how; what sends it is the integration of the database's library.
 */
import type { FastifyInstance, FastifyPluginCallback, FastifyRequest } from "fastify";

import { withContext } from "./context/current.js";
import { pathOf } from "./context/headers.js";
import { checkOptions, customised, type RequestOptions, valuesOf } from "./context/request.js";

/** Options of `contextPlugin`; `context` is given the request. */
export type FastifyOptions = RequestOptions<[request: FastifyRequest]>;

/**
 * A plugin that sets the context of each request: `endpoint`, `method`, `request_id`, `trace_id`
 * and `user_id`, each where it is known. To be registered before what writes.
 *
 * ```ts
 * app.register(contextPlugin);
 * ```
 *
 * Registering it fails with a TypeError for options that can't be meant.
 */
export const contextPlugin: FastifyPluginCallback<FastifyOptions> = (app, options, done) => {
  try {
    checkOptions(options);
  } catch (error) {
    done(error as TypeError);
    return;
  }
  addHooks(app, options);
  done();
};

// It is for the instance that it is registered with, and not for one inside of it.
Object.assign(contextPlugin, {
  [Symbol.for("skip-override")]: true,
  [Symbol.for("fastify.display-name")]: "bemi",
});

function addHooks(app: FastifyInstance, options: FastifyOptions): void {
  app.addHook("onRequest", (request, _reply, done) => {
    const values = valuesOf({
      headers: request.raw,
      endpoint: () => request.routeOptions.url ?? pathOf(request.url),
      method: request.method,
      users: () => [(request as { user?: unknown }).user],
      trust: options.trust,
    });
    // What reads the body, whose events come from where no request is, Fastify itself binds to it.
    withContext({ ...values, ...customised(options.context, request) }, done);
  });
}
