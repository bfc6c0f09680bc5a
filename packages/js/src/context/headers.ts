/** Looks up a request's header, in whichever form a framework has them. */

interface Distinct {
  headersDistinct?: Record<string, string[] | undefined>;
}

interface Fetched {
  get(name: string): string | null | undefined;
}

/**
 * A header of a request of node's, of `Headers` and what is like them, or of an object of lists.
 * Undefined for a `traceparent` that came several times: none of them is the right one.
 */
export function headerOf(source: unknown, name: string): string | undefined {
  if (typeof source !== "object" || source === null) return undefined;
  const lower = name.toLowerCase();
  const distinct = (source as Distinct).headersDistinct;
  if (distinct !== undefined) return onlyOne(lower, distinct[lower]);
  if ("get" in source && typeof source.get === "function") {
    return (source as Fetched).get(lower) ?? undefined;
  }
  const { headers } = source as { headers?: unknown };
  if (headers !== undefined) return headerOf(headers, name);
  const found = (source as Record<string, unknown>)[lower];
  return typeof found === "string" ? found : onlyOne(lower, found);
}

function onlyOne(name: string, found: unknown): string | undefined {
  if (!Array.isArray(found) || (name === "traceparent" && found.length > 1)) return undefined;
  const [first]: unknown[] = found;
  return typeof first === "string" ? first : undefined;
}

/** The path of an address, without what is asked of it. */
export function pathOf(url: string | undefined): string | undefined {
  return url?.split(/[?#]/, 1)[0];
}
