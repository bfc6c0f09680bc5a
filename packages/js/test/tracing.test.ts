import assert from "node:assert/strict";
import { test } from "node:test";

import { currentContext, jobContext, jobHeaders, outgoingHeaders, withContext } from "bemi";
import { headerOf } from "#bemi/context/headers.js";
import { checkOptions, keyOf, type Trust, valuesOf } from "#bemi/context/request.js";
import { readTraceparent, traceValues } from "#bemi/context/tracing.js";
import { encode } from "#bemi/context/wire.js";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

function came(): Readonly<Record<string, unknown>> {
  return traceValues(readTraceparent(PARENT) ?? assert.fail());
}

test("nothing goes out where there is nothing to say", () => {
  assert.deepEqual(outgoingHeaders(), {});
  assert.deepEqual(jobHeaders(), {});
});

test("what goes out", () => {
  let asked = 0;
  const values = { request_id: "req-1", ...came(), user_id: () => (asked += 1), password: "p" };
  withContext(values, () => {
    const headers = outgoingHeaders();
    assert.equal(headers["X-Request-ID"], "req-1");
    assert.equal(headers["traceparent"], PARENT);
    assert.deepEqual(JSON.parse(headers["bemi-context"] ?? ""), {
      request_id: "req-1",
      trace_id: TRACE,
      user_id: 1,
      password: "***",
      _bemi: { redacted: ["password"] },
    });
    assert.deepEqual(Object.keys(outgoingHeaders({ context: false })), [
      "X-Request-ID",
      "traceparent",
    ]);
    assert.deepEqual(Object.keys(jobHeaders()), ["bemi-context", "traceparent"]);
  });
  assert.equal(asked, 1);
});

test("what is small stays whole in a header, which has 4 KiB", () => {
  const header = withContext({ user_id: 7, long: "é".repeat(100_000) }, outgoingHeaders);
  const text = header["bemi-context"] ?? "";
  assert.ok(text.length <= 4096);
  const seen = JSON.parse(text) as { user_id: number; _bemi: unknown };
  assert.deepEqual([seen.user_id, seen._bemi], [7, { truncated: ["long"] }]);
});

test("a trace that is known by its id only", () => {
  const header = withContext({ trace_id: TRACE }, outgoingHeaders)["traceparent"] ?? "";
  assert.match(header, new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`));
  assert.ok(!("traceparent" in withContext({ trace_id: "of another kind" }, outgoingHeaders)));
  const other = { ...came(), trace_id: TRACE.replace("4", "5") };
  assert.notEqual(withContext(other, outgoingHeaders)["traceparent"], PARENT);
});

test("values that fail are no headers", () => {
  const fails = () => {
    throw new Error();
  };
  const headers = withContext({ request_id: fails, trace_id: fails }, outgoingHeaders);
  assert.deepEqual(Object.keys(headers), ["bemi-context"]);
});

test("a job has the context of who asked for it", () => {
  const headers = withContext({ user_id: 9223372036854775807n, ...came() }, jobHeaders);
  const values = jobContext(headers, { job: "mail", worker: undefined });
  assert.equal(values["user_id"], 9223372036854775807n);
  assert.deepEqual(Object.keys(values), ["user_id", "trace_id", "job"]);
  assert.equal(withContext(values, outgoingHeaders)["traceparent"], PARENT);
  for (const wrong of ["", "[1]", "null", "no", "[".repeat(100_000), 7, undefined]) {
    assert.deepEqual(jobContext({ "bemi-context": wrong }, { job: "mail" }), { job: "mail" });
  }
});

const CALLER: Record<string, string> = {
  "X-Request-ID": "req-1",
  traceparent: PARENT,
  "bemi-context": JSON.stringify({
    user_id: 42,
    request_id: "no",
    endpoint: "/caller",
    method: "GET",
    plan: "free",
  }),
};
const OWN = { endpoint: "/own", method: "PUT" };

interface Told {
  trust?: Trust;
  user?: unknown;
  method?: string | undefined;
}

/** The context of a request with these headers, as it is sent. */
function begun(headers: Record<string, string>, told: Told): Record<string, unknown> {
  const { trust, user, method } = { method: "PUT", ...told };
  const values = valuesOf({
    headers: new Headers(headers),
    endpoint: () => "/own",
    users: () => [user],
    method,
    trust,
  });
  return withContext(values, () => JSON.parse(encode(currentContext())) as Record<string, unknown>);
}

const taken: [Trust | undefined, Record<string, unknown>][] = [
  [undefined, { request_id: "req-1", trace_id: TRACE }],
  [["trace_id"], { trace_id: TRACE }],
  [["plan"], { plan: "free" }],
  [["user_id", "request_id"], { user_id: 42, request_id: "req-1" }],
  [["endpoint", "method"], {}],
  [true, { request_id: "req-1", trace_id: TRACE, user_id: 42, plan: "free" }],
  [[], {}],
  [false, {}],
];

for (const [trust, values] of taken) {
  test(`what is taken from a caller: ${String(trust)}`, () => {
    const { request_id: id, ...seen } = begun(CALLER, trust === undefined ? {} : { trust });
    const { request_id: given, ...more } = values;
    assert.deepEqual(seen, { ...OWN, ...more });
    if (given === undefined)
      assert.match(String(id), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    else assert.equal(id, given);
  });
}

test("headers are found in whichever form a framework has them", () => {
  const forms = [
    { headersDistinct: { "x-request-id": ["a", "b"] }, headers: {} },
    { headers: { "x-request-id": "a" } },
    { headers: new Headers({ "X-Request-ID": "a" }) },
    new Map([["x-request-id", "a"]]),
    { "x-request-id": ["a"] },
  ];
  assert.deepEqual(
    forms.map((form) => headerOf(form, "X-Request-ID")),
    Array(5).fill("a"),
  );
  for (const none of [undefined, null, "a", {}, { headers: null }, new Headers()]) {
    assert.equal(headerOf(none, "X-Request-ID"), undefined);
  }
});

test("of several traces none is the right one", () => {
  assert.equal(
    headerOf({ headersDistinct: { traceparent: [PARENT, PARENT] } }, "traceparent"),
    undefined,
  );
  const both = new Headers([
    ["traceparent", PARENT],
    ["traceparent", PARENT],
  ]);
  assert.equal(readTraceparent(headerOf(both, "traceparent")), undefined);
});

test("the user that the service itself knows wins", () => {
  assert.equal(begun(CALLER, { trust: true, user: "ann" })["user_id"], "ann");
});

test("a request without a method does not have its caller's", () => {
  assert.ok(!("method" in begun(CALLER, { trust: true, method: undefined })));
});

const users: [unknown, unknown][] = [
  [null, undefined],
  ["ann", "ann"],
  ["", undefined],
  [42, 42],
  [42n, 42n],
  [true, undefined],
  [{ sub: "ann" }, "ann"],
  [{ id: null, username: "ann" }, "ann"],
  [{ id: 0, username: "ann" }, 0],
  [{ password: "p" }, undefined],
  [
    {
      get id() {
        throw new Error();
      },
    },
    undefined,
  ],
  [{}, undefined],
];

for (const [user, key] of users) {
  test(`what identifies a user: ${typeof user} ${String(key)}`, () => {
    assert.equal(keyOf(user), key);
  });
}

test("wrong options are told at once", () => {
  const wrong: [object, RegExp][] = [
    [{ context: { tenant: 7 } }, /^context takes a function, not/],
    [{ context: async () => ({}) }, /that is not async/],
    [{ trust: "tenant" }, /^trust takes names/],
  ];
  for (const [options, message] of wrong) {
    assert.throws(() => checkOptions(options), { name: "TypeError", message });
  }
});
