/** What applications do in their requests, and what is seen of the context there. */
import assert from "node:assert/strict";
import { setTimeout as after } from "node:timers/promises";

import { currentContext, mergeContext } from "bemi";
import { encode } from "#bemi/context/wire.js";

/** The context as it is sent. */
export type Seen = Record<string, unknown>;

/** The context as it would be sent now. */
export function sent(): Seen {
  return JSON.parse(encode(currentContext())) as Seen;
}

/** Works for a while, adds to the context in between, and answers what it is then. */
export async function work(id: string): Promise<Seen> {
  await after(Number(id) % 5);
  const before = sent();
  mergeContext({ step: id });
  await Promise.all([after(Number(id) % 3), new Promise((done) => setImmediate(done))]);
  assert.deepEqual(sent(), { ...before, step: id }, "as it was, but for what was added");
  return sent();
}

export const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
export const CALLER = {
  "x-request-id": "req-1",
  traceparent: `00-${TRACE}-00f067aa0ba902b7-01`,
  "bemi-context": JSON.stringify({ user_id: "caller", plan: "free" }),
};

const COUNT = 200;

/** Many requests at once, each with an id of its own: each answers with its own context. */
export async function manyAtOnce(
  request: (id: string, headers: Record<string, string>) => Promise<Seen>,
  expected: (id: string) => Seen,
): Promise<void> {
  const ids = Array.from({ length: COUNT }, (_, number) => String(number));
  const seen = await Promise.all(ids.map((id) => request(id, { "x-request-id": `req-${id}` })));
  assert.deepEqual(
    seen,
    ids.map((id) => ({ request_id: `req-${id}`, ...expected(id), step: id })),
  );
}

/** What a request answers. */
export async function answer(url: string, init: RequestInit = {}): Promise<Seen> {
  const response = await fetch(url, init);
  assert.equal(response.status, 200, await response.clone().text());
  return (await response.json()) as Seen;
}

/** A request with a body of JSON. */
export function json(method: string, body: unknown, headers: Record<string, string> = {}) {
  const type = { "content-type": "application/json" };
  return { method, headers: { ...type, ...headers }, body: JSON.stringify(body) };
}
