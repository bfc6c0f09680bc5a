import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { setTimeout as after } from "node:timers/promises";

import {
  clearContext,
  currentContext,
  mergeContext,
  setContext,
  type Values,
  withContext,
} from "bemi";
import { peek } from "#bemi/context/current.js";
import { encode } from "#bemi/context/wire.js";

/** A place without a context, whatever came before. */
function alone(name: string, run: () => void | Promise<void>): void {
  test(name, () => withContext({}, run));
}

test("without any there is an empty one", () => {
  assert.deepEqual(currentContext(), {});
  clearContext();
  assert.deepEqual(currentContext(), {});
});

test("outside of a block it is set for what follows", async () => {
  setContext({ user_id: 1 });
  mergeContext({ job: "mail" });
  await after(1);
  assert.deepEqual(currentContext(), { user_id: 1, job: "mail" });
  clearContext();
  assert.deepEqual(currentContext(), {});
});

test("a query that is returned before it has begun runs inside", async () => {
  const query = {
    then(resolve: (value: unknown) => void) {
      resolve(currentContext());
    },
  };
  const asked = withContext({ a: 1 }, () => query as PromiseLike<unknown>);
  assert.deepEqual(await asked, { a: 1 });
  assert.deepEqual(await asked, { a: 1 });
  const never = { then: 7 };
  assert.equal(
    withContext({ a: 1 }, () => never),
    never,
  );
});

test("what is set for the whole program is not altered by what requests set", async () => {
  await new Promise<void>((done) => {
    setImmediate(() => {
      setContext({ service: "api" });
      const request = async (id: number) => {
        mergeContext({ user_id: id });
        await after(2);
        mergeContext({ job: id });
        return currentContext();
      };
      const both = Promise.all([1, 2].map((id) => after(1).then(() => request(id))));
      void both.then((seen) => {
        assert.deepEqual(
          seen,
          [1, 2].map((id) => ({ service: "api", user_id: id, job: id })),
        );
        assert.deepEqual(currentContext(), { service: "api" });
        done();
      });
    });
  });
  assert.deepEqual(currentContext(), {});
});

alone("a block gives what its function returns, a promise too", async () => {
  assert.equal(
    withContext({ a: 1 }, () => 7),
    7,
  );
  const promise = withContext({ a: 1 }, async () => {
    await after(1);
    return currentContext();
  });
  assert.deepEqual(currentContext(), {});
  assert.deepEqual(await promise, { a: 1 });
});

alone("a block ends its context also on an error", async () => {
  const fails = () => {
    throw new RangeError();
  };
  assert.throws(() => withContext({ user_id: 1 }, fails), RangeError);
  await assert.rejects(
    withContext({ user_id: 1 }, async () => after(1).then(fails)),
    RangeError,
  );
  assert.deepEqual(currentContext(), {});
});

alone("set replaces, merge adds, clear empties, each for the innermost block", () => {
  setContext({ user_id: 1, job: "mail" });
  setContext({ user_id: 2 });
  mergeContext({ "trace-id": 3, method: "PUT" });
  assert.deepEqual(currentContext(), { user_id: 2, "trace-id": 3, method: "PUT" });
  withContext({ job: "mail" }, () => {
    setContext({ tenant: 7 });
    assert.deepEqual(currentContext(), { tenant: 7 });
  });
  assert.deepEqual(currentContext(), { user_id: 2, "trace-id": 3, method: "PUT" });
  clearContext();
  assert.deepEqual(currentContext(), {});
});

alone("what a function that is called sets is seen by its caller", async () => {
  const middleware = async () => {
    await after(1);
    mergeContext({ user_id: 1 });
  };
  await middleware();
  assert.deepEqual(currentContext(), { user_id: 1 });
});

alone("what is handed out is a copy, and what is handed in is copied", () => {
  const given = { user_id: 1 };
  setContext(given);
  given.user_id = 2;
  currentContext()["user_id"] = 3;
  assert.deepEqual(currentContext(), { user_id: 1 });
});

alone("it is the same object as long as nothing has changed", () => {
  setContext({ user_id: 1 });
  const before = peek();
  assert.equal(peek(), before);
  mergeContext({ job: "mail" });
  assert.notEqual(peek(), before);
  assert.deepEqual(before, { user_id: 1 });
});

test("many at once keep theirs apart", async () => {
  const one = (id: number) =>
    withContext({ user_id: id }, async () => {
      await after(id % 7);
      mergeContext({ job: id });
      await Promise.all([after(id % 3), new Promise((done) => setImmediate(done))]);
      return currentContext();
    });
  const ids = Array.from({ length: 500 }, (_, id) => id);
  assert.deepEqual(
    await Promise.all(ids.map(one)),
    ids.map((id) => ({ user_id: id, job: id })),
  );
});

test("a member may have any name", () => {
  const hostile = JSON.parse('{"__proto__": {"admin": true}, "constructor": 1}') as Values;
  withContext(hostile, () => {
    mergeContext({ user_id: 1 });
    assert.equal(({} as Values)["admin"], undefined);
    assert.equal(
      encode(currentContext()),
      '{"__proto__":{"admin":true},"constructor":1,"user_id":1}',
    );
  });
});

test("what is no object of values is refused", () => {
  for (const wrong of ["user", 7, [], () => ({}), true]) {
    assert.throws(() => withContext(wrong as unknown as Values, () => 1), {
      name: "TypeError",
      message: /^a context is an object of values by name, not an? /,
    });
  }
  assert.deepEqual(withContext(null, currentContext), {});
  assert.deepEqual(withContext(undefined, currentContext), {});
});

test("functions are called once, whoever wants their value", () => {
  let asked = 0;
  withContext({ user_id: () => ++asked }, () => {
    assert.equal(asked, 0);
    assert.equal(encode(currentContext()), '{"user_id":1}');
    withContext({ job: "mail" }, () => {
      assert.equal(encode(peek()), '{"user_id":1,"job":"mail"}');
    });
    assert.equal(encode(peek()), '{"user_id":1}');
  });
  assert.equal(asked, 1);
});

test("a function that returns nothing is no member", () => {
  const values = { user_id: () => undefined, team: () => null, plan: null, none: undefined };
  assert.equal(
    withContext(values, () => encode(peek())),
    '{"plan":null}',
  );
});

test("a function that fails, or is async, is named instead, and harms nobody", async () => {
  const values = {
    fails: () => {
      throw new Error();
    },
    itself: () => encode(peek()),
    later: async () => Promise.reject(new Error("never handled")),
    kind: class Kind {},
  };
  const content = withContext(values, () => encode(peek()));
  await after(1);
  const seen = JSON.parse(content) as Values;
  assert.deepEqual(
    { ...seen, itself: undefined },
    {
      fails: "Function",
      itself: undefined,
      later: "Promise",
      kind: "Function",
      _bemi: { replaced: ["fails", "later", "kind"] },
    },
  );
});

test("ESM and CommonJS share what is current", () => {
  const other = createRequire(import.meta.url)("bemi") as typeof import("bemi");
  assert.notEqual(other.withContext, withContext);
  withContext({ user_id: 1 }, () => {
    other.mergeContext({ job: () => "mail" });
    assert.equal(encode(currentContext()), '{"user_id":1,"job":"mail"}');
  });
});
