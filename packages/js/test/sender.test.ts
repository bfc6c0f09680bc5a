import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { withContext } from "bemi";
import { COMMIT, type Options, Sender } from "#bemi/context/sender.js";
import { state } from "#bemi/context/state.js";

import { Session } from "./session.js";

const WRITE = "insert into t values (1)";

beforeEach(() => state.told.clear());

/** What the process is warned of meanwhile. */
async function warned(run: () => void): Promise<string[]> {
  const told: string[] = [];
  const listen = (warning: Error) => told.push(`${warning.name}: ${warning.message}`);
  process.on("warning", listen);
  try {
    run();
    await new Promise((done) => setImmediate(done));
  } finally {
    process.off("warning", listen);
  }
  return told;
}

test("another one when it changed, none when it is as it was, an empty one where it ends", () => {
  const at = new Session();
  withContext({ user_id: 1 }, () => {
    at.run(WRITE);
    withContext({ job: "mail" }, () => {
      assert.deepEqual(at.run("select 1", WRITE), [undefined, { user_id: 1, job: "mail" }]);
    });
    withContext({ job: "mail" }, () => assert.deepEqual(at.run(WRITE), [undefined]));
    assert.deepEqual(at.run(WRITE, WRITE), [{ user_id: 1 }, undefined]);
  });
  assert.deepEqual(at.run(WRITE), [{}]);
});

test("savepoints of one name hide each other", () => {
  const at = new Session();
  withContext({ user_id: 1 }, () => {
    at.run("savepoint a", WRITE, "savepoint a");
    assert.equal(at.sender.depth, 2);
    assert.deepEqual(at.run("rollback to a", WRITE, "release a"), Array(3).fill(undefined));
    assert.deepEqual(at.run("rollback to a", WRITE), [undefined, { user_id: 1 }]);
  });
});

test("the context is that of who called, whoever's turn it is", () => {
  const { sender } = new Session();
  const write = sender.statement(WRITE);
  let asked = 0;
  const user = () => (asked += 1);
  const context = withContext({ user_id: user }, () => sender.capture(write));
  assert.equal(asked, 1, "found out there, and not where it is sent");
  withContext({ user_id: 7 }, () => {
    const due = sender.due(write, { inTransaction: false, autocommit: false, context });
    assert.equal(due?.content, '{"user_id":1}');
  });
  assert.equal(asked, 1);
});

test("values are found out for writes only", () => {
  const at = new Session({ checkAtCommit: true });
  let asked = 0;
  withContext({ user_id: () => (asked += 1) }, () => {
    at.run("select 1", "rollback");
    assert.equal(asked, 0);
    assert.deepEqual(at.run("select 1", "commit"), [undefined, { user_id: 1 }]);
    assert.deepEqual(at.run(WRITE, "commit"), [{ user_id: 1 }, undefined]);
  });
  assert.equal(asked, 1);
});

test("at a COMMIT it is sent where something was written that nobody saw", () => {
  const sender = new Sender({ checkAtCommit: true });
  const context = { user_id: 1 };
  const situation = { inTransaction: true, autocommit: false, context };
  const due = sender.due(COMMIT, situation);
  assert.equal(
    due?.statement(),
    "select case when pg_catalog.pg_current_xact_id_if_assigned() is not null then" +
      " pg_catalog.pg_logical_emit_message(true, '_bemi', cast($1 as pg_catalog.text)) end",
  );
  sender.sent(due);
  assert.equal(sender.due(COMMIT, situation), undefined);
  assert.equal(sender.due(COMMIT, { ...situation, inTransaction: false }), undefined);
});

test("the statement that sends it has one parameter, as the driver writes it", () => {
  assert.equal(
    new Sender().now({}).statement("?"),
    "select pg_catalog.pg_logical_emit_message(true, '_bemi', cast(? as pg_catalog.text))",
  );
});

test("a role that may not send is told of once, and sends nothing", async () => {
  const at = new Session();
  const told = await warned(() => {
    assert.equal(new Sender().checked([false, false, "f", true]), false);
    assert.equal(at.sender.checked([false, false, "f", true]), false);
  });
  assert.deepEqual(told, [
    "BemiWarning: bemi: the database role may not send contexts, so changes are captured without;" +
      " fix: grant execute on function f to the role",
  ]);
  withContext({ user_id: 1 }, () => assert.deepEqual(at.run(WRITE), [undefined]));
});

test("a standby is told of once, and asked again", async () => {
  const sender = new Sender();
  const told = await warned(() => {
    for (const _ of [1, 2]) assert.equal(sender.checked([true, false, "f", false]), false);
  });
  assert.equal(told.length, 1);
  assert.equal(sender.allowed, undefined);
  assert.equal(sender.checked([false, true, "f", true]), true);
});

test("without logical decoding it is said once", async () => {
  const told = await warned(() => {
    assert.equal(new Sender().checked([false, true, "f", false]), false);
  });
  assert.match(told.join(), /wal_level is not logical/);
});

test("a role that was changed is asked again", () => {
  const { sender } = new Session();
  const told = ["set role ann", "commit", "commit"].map((text) => {
    sender.ran(sender.statement(text));
    const { allowed } = sender;
    sender.allowed = false;
    return allowed;
  });
  assert.deepEqual(told, [undefined, undefined, false]);
});

test("after a failure it is not known what was sent", () => {
  const at = new Session();
  withContext({ user_id: 1 }, () => {
    assert.deepEqual(at.run(WRITE, WRITE), [{ user_id: 1 }, undefined]);
    at.fail("select 1");
    assert.deepEqual(at.run(WRITE, WRITE), [{ user_id: 1 }, undefined]);
    at.fail("commit");
    assert.deepEqual(at.run(WRITE), [{ user_id: 1 }], "a COMMIT that fails ends it, too");
  });
  at.fail("select 1");
  assert.deepEqual(at.run(WRITE), [{}], "what may have been sent ends");
});

test("functions that are no names are refused", () => {
  for (const functions of ["add_one", ["add_one()"], [1], [""], 7]) {
    assert.throws(() => new Sender({ functions } as Options), {
      name: "TypeError",
      message: /^functions takes names/,
    });
  }
});

test("an option that there is not is refused", () => {
  assert.throws(() => new Sender({ functons: [] } as Options), {
    name: "TypeError",
    message: "bemi has no option functons; there are functions, checkAtCommit, sql, redact",
  });
});
