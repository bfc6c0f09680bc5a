/**
 * The current context, on its way through Supabase's HTTP API: it goes along as headers, which the
 * function that `bemi init --postgrest` makes reads, where it is told to trust them.
 *
 * ```ts
 * createClient(url, key, { global: { fetch: fetchWithContext() } })
 * ```
 */

import { outgoingHeaders } from "./context/tracing.js";

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
