/**
 * Operations of Apollo Server have their context.
 *
 * It says who, where and how; what sends it is the integration of the database's library.
 */
import type { ApolloServerPlugin, BaseContext, GraphQLRequestContext } from "@apollo/server";

import { enter } from "./context/current.js";
import { checkOptions, customised, type RequestOptions, valuesOf } from "./context/request.js";

/** Options of `contextPlugin`; `context` is given Apollo's request context. */
export type ApolloOptions<Context extends BaseContext> = RequestOptions<
  [request: GraphQLRequestContext<Context>]
>;

/**
 * A plugin that sets the context of each operation: `endpoint`, the operation's name, or the names
 * of its fields where it has none, and `request_id`, `trace_id`, `method` and `user_id`, each where
 * it is known: the user is looked for in the `user` and `auth` of what `context` of the server made.
 *
 * ```ts
 * new ApolloServer({ typeDefs, resolvers, plugins: [contextPlugin()] });
 * ```
 *
 * @throws TypeError for options that can't be meant
 */
export function contextPlugin<Context extends BaseContext = BaseContext>(
  options: ApolloOptions<Context> = {},
): ApolloServerPlugin<Context> {
  checkOptions(options);
  return {
    // Not async: it is called in the midst of the operation, which goes on in what is entered here.
    requestDidStart(request) {
      const ctx = request.contextValue as { user?: unknown; auth?: unknown };
      const values = valuesOf({
        headers: request.request.http?.headers,
        endpoint: () => request.operationName ?? fields(request),
        method: request.request.http?.method,
        users: () => [ctx.user, ctx.auth],
        trust: options.trust,
      });
      enter({ ...values, ...customised(options.context, request) });
      return Promise.resolve();
    },
  };
}

/**
 * The plugin under the name that Bemi's earlier packages have for it.
 *
 * @deprecated use `contextPlugin({ context })`
 */
export function BemiApolloServerPlugin<Context extends BaseContext = BaseContext>(
  context: (request: GraphQLRequestContext<Context>) => object,
): ApolloServerPlugin<Context> {
  return contextPlugin({ context });
}

/** What an operation without a name asks for: `completeTodo`. */
function fields<Context extends BaseContext>(
  request: GraphQLRequestContext<Context>,
): string | undefined {
  const names = request.operation?.selectionSet.selections.map((selection) =>
    selection.kind === "Field" ? selection.name.value : "…",
  );
  return names?.join(", ");
}
