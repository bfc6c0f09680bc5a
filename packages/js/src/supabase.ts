/**
 * The current context, on its way through Supabase's HTTP API: it goes along as headers, which the
 * function that `bemi init --postgrest` makes reads, where it is told to trust them.
 *
 * ```ts
 * createClient(url, key, { global: { fetch: fetchWithContext() } })
 * ```
 */

import { CONTEXT, outgoingHeaders, REQUEST_LIMIT } from "./context/tracing.js";
import { encode } from "./context/wire.js";

/**
 * A `fetch` that sends the context of who calls it with each request: `X-Request-ID`,
 * `traceparent` and `bemi-context`. Headers that a request has already stay as they are.
 *
 * @param original - what sends the requests.
 */
export function fetchWithContext(original: typeof fetch = fetch): typeof fetch {
  return (input, init) => {
    const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : {}));
    for (const [name, value] of Object.entries(outgoingHeaders())) {
      if (!headers.has(name)) headers.set(name, value);
    }
    return original(input, { ...init, headers });
  };
}

/** What is used of a client of Supabase's. */
interface Client {
  rest: { headers: Headers | Record<string, string> };
}

/**
 * The context of all that a client of Supabase's does from now on, where it is one request's, as in
 * an Edge Function. A context of `withContext` is not needed then.
 *
 * @param client - what `createClient(…)` gives.
 * @param values - see `withContext`.
 * @throws TypeError for what is no client of Supabase's
 */
export function setContext(client: object, values: object): void {
  const { rest } = client as Partial<Client>;
  if (!rest?.headers) throw new TypeError("setContext takes a client of @supabase/supabase-js");
  const content = encode(values as Record<string, unknown>, { limit: REQUEST_LIMIT });
  if (rest.headers instanceof Headers) rest.headers.set(CONTEXT, content);
  else rest.headers[CONTEXT] = content;
}
