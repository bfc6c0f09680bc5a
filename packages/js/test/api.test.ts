import assert from "node:assert/strict";
import { test } from "node:test";
import { type Change, Client, ExactNumber, ProblemError } from "bemi/api";
import fc from "fast-check";
import { events } from "#bemi/internal/api/events.js";
import { parse } from "#bemi/internal/api/exact.js";

const kept: [string, unknown][] = [
  ["9007199254740991", 9007199254740991],
  ["9007199254740992", 9007199254740992n],
  ["-9007199254740993", -9007199254740993n],
  ["1234567890123456.00", 1234567890123456],
  ["0.1", 0.1],
  ["0.30000000000000004", 0.30000000000000004],
  ["1e21", 1e21],
  ["1.5e300", 1.5e300],
  ["0.300000000000000041", new ExactNumber("0.300000000000000041")],
  ["12345678901234567890.10", new ExactNumber("12345678901234567890.10")],
  ["1e400", new ExactNumber("1e400")],
  ["-1e-400", new ExactNumber("-1e-400")],
  ["0.000000000000000000", 0],
  ['"9007199254740993"', "9007199254740993"],
  ['"number:9007199254740993"', "number:9007199254740993"],
];

for (const [text, value] of kept) {
  test(`${text} keeps its digits`, () => {
    assert.deepEqual(parse(text), value);
    assert.deepEqual(parse(`{"a": [${text}, 12345678901234567890]}`), {
      a: [value, 12345678901234567890n],
    });
  });
}

/** Integers from 2^53 on that a number can hold are a bigint all the same: others look like them. */
function asNumbers(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(asNumbers);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, asNumbers(each)]));
}

test("what JavaScript can hold is what JSON.parse makes of it", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      assert.deepEqual(asNumbers(parse(text)), JSON.parse(text));
    }),
  );
});

test("texts are never taken for numbers", () => {
  const hostile = fc.array(
    fc.constantFrom('"', "\\", "number:", ":", "1e400", "12345678901234567890"),
  );
  fc.assert(
    fc.property(fc.array(hostile.map((parts) => parts.join(""))), (texts) => {
      const given = JSON.stringify([...texts, "end"]).replace('"end"', "12345678901234567890");
      assert.deepEqual(parse(given), [...texts, 12345678901234567890n]);
    }),
  );
});

test("texts may be long", () => {
  for (const each of ["a", '"', "\\"]) {
    const text = JSON.stringify(each.repeat(10_000_000));
    assert.ok(Array.isArray(parse(`[${text}, 12345678901234567890]`)));
  }
});

test("what is no JSON is a SyntaxError", () => {
  for (const text of ["", "{", "12345678901234567890 1", "[1e400", "0012345678901234567890"]) {
    assert.throws(() => parse(text), SyntaxError);
  }
});

test("exact numbers are texts in JSON, and nearly numbers", () => {
  const exact = new ExactNumber("0.300000000000000041");
  assert.equal(JSON.stringify({ exact }), '{"exact":"0.300000000000000041"}');
  assert.equal(`${exact}`, "0.300000000000000041");
  assert.equal(Number(exact), 0.30000000000000004);
});

async function* inPieces(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("events are read whatever pieces they come in", async () => {
  const text =
    "retry: 7\nid: 1\n\n: beat\nid: 2\n\nevent: change\r\ndata: {é\ndata: 😀}\nid: 3\n\ndata\n\nid: 4\ndata: lost";
  for (const size of [1, 2, 3, 1000]) {
    const found = [];
    for await (const each of events(inPieces(text, size), "0")) found.push(each);
    assert.deepEqual(found, [
      { type: "message", data: "", id: "1", retry: 7 },
      { type: "message", data: "", id: "2", retry: undefined },
      { type: "change", data: "{é\n😀}", id: "3", retry: undefined },
      { type: "message", data: "", id: "3", retry: undefined },
    ]);
  }
});

test("questions are typed, and asked as they are meant", async () => {
  const asked: string[] = [];
  const client = new Client({
    url: "http://history/",
    token: "t",
    fetch: async (url, init) => {
      asked.push(`${init?.method} ${url} ${new Headers(init?.headers).get("Authorization")}`);
      return new Response('{"changes": [], "next": null}');
    },
  });
  const page = await client.get("/changes", { query: { context: ["a=1", "b=2"], table: null } });
  const changes: Change[] = page.changes;
  await client.get("/record/blame", { query: { table: "a b", key: "1" } });
  await client.get("/changes/{id}", { path: { id: "a/b" } });
  // @ts-expect-error: the path has a name
  await client.get("/changes/{id}", {});
  // @ts-expect-error: there is no such filter
  await client.get("/changes", { query: { nothing: 1 } });
  // @ts-expect-error: it can't be asked so
  await client.post("/changes");
  // @ts-expect-error: it has no pages
  client.all("/me");
  assert.deepEqual(changes, []);
  assert.deepEqual(asked.slice(0, 3), [
    "GET http://history/api/v1/changes?context=a%3D1&context=b%3D2 Bearer t",
    "GET http://history/api/v1/record/blame?table=a+b&key=1 Bearer t",
    "GET http://history/api/v1/changes/a%2Fb Bearer t",
  ]);
});

test("a stream waits as long as it is told, and gives up where that does not help", async () => {
  const answers = [
    new Response("", { status: 503, headers: { "Retry-After": "0" } }),
    new Response("id: 7\nretry: 0\n\n"),
    new Response("{}", { status: 403 }),
  ];
  const seen: (string | null)[] = [];
  const client = new Client({
    url: "http://history",
    fetch: async (_url, init) => {
      seen.push(new Headers(init?.headers).get("Last-Event-ID"));
      return answers.shift() ?? Response.error();
    },
  });
  await assert.rejects(client.stream().next(), (error) => {
    assert.ok(error instanceof ProblemError);
    assert.deepEqual([error.status, error.type, error.message], [403, "about:blank", "403 "]);
    return true;
  });
  assert.deepEqual(seen, [null, null, "7"]);
});

test("an event that can't be read is no gap", async () => {
  const asked: string[] = [];
  const client = new Client({
    url: "http://history",
    fetch: async (url) => {
      asked.push(String(url));
      return new Response('id: 7\nretry: 0\n\nid: 8\nevent: change\ndata: {"a\n\n');
    },
  });
  await assert.rejects(client.stream().next(), SyntaxError);
  assert.equal(asked.length, 1);
});

test("a token is in no error, and what is asked stays below its path", async () => {
  const fetch = async () => new Response('{"changes": []}');
  const odd = new Client({ url: "http://history", token: "s3\ncret", fetch });
  await assert.rejects(odd.get("/me"), (error) => !String(error).includes("cret"));
  const client = new Client({ url: "http://history", token: "t\n", fetch });
  await assert.rejects(client.post("/people/{id}/link", { path: { id: ".." } }), TypeError);
  // An answer without `next` is the last one.
  for await (const _ of client.all("/changes")) assert.fail();
});
