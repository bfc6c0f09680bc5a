import assert from "node:assert/strict";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import type { Values } from "bemi";
import fc from "fast-check";
import { parse } from "#bemi/context/json.js";
import { encode, LIMIT } from "#bemi/context/wire.js";

class Tenant {
  id = 7;
}

class Money {
  toJSON(): string {
    return "12.50";
  }
}

const encoded: [string, unknown, unknown][] = [
  ["a date", new Date(Date.UTC(2026, 4, 3, 14, 2, 7)), "2026-05-03T14:02:07.000Z"],
  ["a bigint", 1n << 80n, 1n << 80n],
  ["NaN", NaN, "NaN"],
  ["infinities", [Infinity, -Infinity], ["Infinity", "-Infinity"]],
  ["a large number", 1e300, 1e300],
  [
    "a map",
    new Map<unknown, unknown>([
      [1, "a"],
      [null, "b"],
      ["c", new Set([3])],
    ]),
    { 1: "a", null: "b", c: [3] },
  ],
  ["what says itself what it is", new Money(), "12.50"],
  ["an address", new URL("https://example.org/a?b"), "https://example.org/a?b"],
  ["an object without a prototype", Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
  [
    "an object of another realm",
    runInNewContext("({ a: new Map([[1, new Date(0)]]) })"),
    { a: { 1: "1970-01-01T00:00:00.000Z" } },
  ],
  [
    "what is not there",
    { a: undefined, b: Object.assign(Array(3), { 2: 1 }) },
    { b: [null, null, 1] },
  ],
];

for (const [name, value, result] of encoded) {
  test(`${name} becomes what the spec says`, () => {
    assert.deepEqual(parse(encode({ value })), { value: result });
  });
}

function refusing(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

const replaced: [string, unknown, string][] = [
  ["an instance of a class", new Tenant(), "Tenant"],
  ["bytes", Buffer.from("bytes"), "Buffer"],
  ["a buffer", new ArrayBuffer(3), "ArrayBuffer"],
  ["a symbol", Symbol("s"), "Symbol"],
  ["a function deeper down", () => 1, "Function"],
  ["a class", Tenant, "Function"],
  ["a promise", Promise.resolve(1), "Promise"],
  ["an error", new RangeError("secret"), "RangeError"],
  ["no date", new Date(NaN), "Date"],
  ["an integer of thousands of digits", 1n << 100_000n, "BigInt"],
  [
    "one that fails",
    {
      get a() {
        throw new Error();
      },
    },
    "Object",
  ],
  ["one that refuses to be looked at", refusing(), "Object"],
  ["one that lies about its name", { constructor: { name: 7 }, __proto__: new Tenant() }, "Object"],
];
for (const [name, value, type] of replaced) {
  test(`${name} can't be encoded, and is its type's name, and listed`, () => {
    assert.deepEqual(parse(encode({ a: { value } })), {
      a: { value: type },
      _bemi: { replaced: ["a.value"] },
    });
  });
}

test("the longest integer that is sent has 1,024 bits", () => {
  const longest = (1n << 1024n) - 1n;
  assert.equal(encode({ a: longest, b: -longest }), `{"a":${longest},"b":${-longest}}`);
  assert.match(encode({ a: longest + 1n }), /"BigInt"/);
});

test("what contains itself ends", () => {
  const loop: unknown[] = [];
  loop.push(loop, loop);
  const content = encode({ loop });
  assert.ok(content.length <= LIMIT);
  JSON.parse(content);
  const again = { toJSON: (): unknown => again };
  assert.deepEqual(JSON.parse(encode({ again })), {
    again: "Object",
    _bemi: { replaced: ["again"] },
  });
});

test("what goes on for ever by its own account ends", () => {
  class Endless extends Map<string, unknown> {
    override *[Symbol.iterator](): MapIterator<[string, unknown]> {
      for (;;) yield ["a", 1];
    }
  }
  const holes: unknown[] = [];
  holes.length = 2 ** 32 - 1;
  const content = encode({ user_id: 7, endless: new Endless([["b", 2]]), holes });
  const read = JSON.parse(content) as Values;
  assert.deepEqual(
    { ...read, holes: null },
    {
      user_id: 7,
      endless: { b: 2 },
      holes: null,
      _bemi: { truncated: ["holes"] },
    },
  );
});

const cut: [string, () => Values, string[]][] = [
  ["a text", () => ({ body: "x".repeat(1_500_000) }), ["body"]],
  ["escapes", () => ({ body: "é\u0001".repeat(200_000) }), ["body"]],
  ["surrogate pairs", () => ({ body: "😀".repeat(150_000) }), ["body"]],
  ["nested", () => ({ a: { b: "x".repeat(2_000_000), c: 1 } }), ["a.b"]],
  ["a list", () => ({ items: Array.from({ length: 250_000 }, (_, at) => at) }), ["items"]],
  ["two", () => ({ x: "x".repeat(900_000), y: "y".repeat(800_000), z: "z" }), ["x", "y"]],
  [
    "many",
    () => Object.fromEntries(Array.from({ length: 80_000 }, (_, at) => [`n_${at}`, at])),
    [""],
  ],
  ["a name", () => ({ ["n".repeat(2_000_000)]: 1 }), [""]],
];

for (const [name, context, truncated] of cut) {
  test(`what is largest is cut until the whole fits: ${name}`, () => {
    const content = encode({ user_id: 7, ...context() });
    assert.ok(content.length <= LIMIT);
    const read = JSON.parse(content) as { user_id: number; _bemi: unknown };
    assert.equal(read.user_id, 7);
    assert.deepEqual(read._bemi, { truncated });
    assert.doesNotMatch(content, /\\ud83d(?!\\ude00)/);
    if (!truncated.includes("")) assert.ok(content.length > LIMIT * 0.9);
  });
}

test("long lists of notes are cut", () => {
  const content = encode({
    ["x".repeat(3000)]: Symbol("s"),
    many: Array.from({ length: 100_000 }, () => Symbol("s")),
    body: "x".repeat(2_000_000),
  });
  assert.ok(content.length <= LIMIT);
  const { _bemi } = JSON.parse(content) as { _bemi: { replaced: string[] } };
  assert.equal(_bemi.replaced.length, 101);
  assert.equal(_bemi.replaced.at(-1), "…");
});

test("secrets are kept where that is asked for", () => {
  assert.equal(encode({ password: "p" }, { redact: false }), '{"password":"p"}');
});

test("whatever goes in, what comes out is a JSON object of the size that it may have", () => {
  const anything = fc.anything({
    withBigInt: true,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withSet: true,
    withSparseArray: true,
    withTypedArray: true,
    key: fc.string({ unit: "binary" }),
  });
  const context = fc.dictionary(fc.string({ unit: "binary" }), anything, { maxKeys: 5 });
  const limit = fc.constantFrom(1000, 4096, LIMIT);
  fc.assert(
    fc.property(context, limit, (values, limit) => {
      const content = encode({ ...values, filling: "x".repeat(900) }, { limit });
      assert.ok(content.length <= limit);
      assert.match(content, /^[ -~]*$/);
      assert.doesNotMatch(content, /(?<!\\)(?:\\\\)*\\u0000/);
      assert.equal(typeof parse(content), "object");
    }),
    { numRuns: 300 },
  );
});

test("any JSON is read as what it says, and integers exactly", () => {
  const rounded = (value: unknown) =>
    JSON.stringify(value, (_, each) =>
      typeof each === "bigint" ? Number(each) : (each as unknown),
    );
  const json = fc.json({ stringUnit: "binary" });
  fc.assert(
    fc.property(json, (text) => assert.equal(rounded(parse(text)), rounded(JSON.parse(text)))),
  );
  const texts = fc.tuple(
    fc.bigInt(),
    fc.string(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
  );
  fc.assert(
    fc.property(texts, ([number, text, double]) => {
      const padded = `${text}1234567890123456789`;
      const read = parse(
        `{"a":[${number}, -12345678901234567890]` +
          `,${JSON.stringify(padded)}:${JSON.stringify(padded)}` +
          `,"d":${JSON.stringify(double)},"e":0.12345678901234567890,"f":1e-0000000000000000001}`,
      ) as { a: [unknown, unknown]; d: unknown; e: unknown; f: unknown };
      assert.equal(BigInt(read.a[0] as bigint), number);
      assert.equal(read.a[1], -12345678901234567890n);
      assert.equal((read as Values)[padded], padded);
      assert.equal(Number(read.d), JSON.parse(JSON.stringify(double)));
      assert.deepEqual([read.e, read.f], [0.12345678901234568, 0.1]);
    }),
  );
  const digits = "1234567890123456789";
  for (const wrong of [`0${digits}`, `${digits}.`, `--${digits}`, `"${digits}`, `${digits}a`]) {
    assert.throws(() => parse(wrong), SyntaxError);
  }
  assert.throws(() => parse("9".repeat(5000)), RangeError);
});
