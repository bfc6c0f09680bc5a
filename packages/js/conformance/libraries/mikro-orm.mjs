// MikroORM: one EntityManager on a pool of one connection; for requests at once a pool of five.

import { EntitySchema, MikroORM } from "@mikro-orm/postgresql";
import { withContext } from "bemi";
import { Change, install, setContext } from "bemi/mikro-orm";

import { Block, inTurns } from "../library.mjs";

const Todo = new EntitySchema({
  name: "Todo",
  tableName: "todo",
  properties: {
    id: { type: "integer", primary: true },
    task: { type: "text", nullable: true },
    n: { type: "integer", nullable: true },
    notes: { kind: "1:m", entity: () => Note, mappedBy: "todo" },
  },
});

const Note = new EntitySchema({
  name: "Note",
  tableName: "note",
  properties: {
    id: { type: "integer", primary: true },
    text: { type: "text", unique: true },
    todo: { kind: "m:1", entity: () => Todo, fieldName: "todo_id", nullable: true },
  },
});

const History = new EntitySchema(Change);

function made({ dbname: dbName, ...rest }, max, settings = {}) {
  const entities = [Todo, Note, History];
  return MikroORM.init({ ...rest, dbName, entities, pool: { min: 0, max }, ...settings });
}

export class Library {
  async open(address, autocommit, plain, options) {
    this.address = address;
    this.options = options;
    this.orm = await made(address, 1);
    if (!plain) await install(this.orm, options);
    this.em = this.orm.em.fork();
    this.autocommit = autocommit;
    this.blocks = [];
  }

  async close() {
    // It waits for a connection that is in use.
    if (this.orm) await this.rollback();
    await this.orm?.close(true);
    this.orm = undefined;
  }

  async execute(statement, parameters, how) {
    const em = this.blocks.at(-1)?.transaction ?? this.em;
    if (!this.autocommit && !em.isInTransaction()) await em.begin();
    return em.execute(statement.replaceAll("{}", parameters.length ? "?" : "{}"), parameters, how);
  }

  async run(statement, parameters) {
    return (await this.execute(statement, parameters, "all")).map(Object.values);
  }

  async count(statement, parameters) {
    return (await this.execute(statement, parameters, "run")).affectedRows;
  }

  async many(statement, rows) {
    for (const row of rows) await this.execute(statement, row, "run");
  }

  async commit() {
    if (this.em.isInTransaction()) await this.em.commit();
  }

  async rollback() {
    if (this.em.isInTransaction()) await this.em.rollback();
  }

  async enter() {
    const em = this.blocks.at(-1)?.transaction ?? this.em;
    this.blocks.push(await Block.entered((within) => em.transactional(within)));
  }

  async leave(failed) {
    await this.blocks.pop().left(failed);
  }

  async concurrent(writes, requests) {
    const orm = await install(await made(this.address, 5), this.options);
    await inTurns(writes, requests, {
      read: () => orm.em.fork().count(Todo),
      alone: (task) => orm.em.fork().insert(Todo, { task }),
      together: async (tasks) => {
        const em = orm.em.fork();
        for (const task of tasks) em.create(Todo, { task });
        await em.flush();
      },
    });
    await orm.close(true);
  }

  /** Each step in a context of its own, which has its name. */
  async models() {
    const { orm } = this;
    const steps = {
      "flush of several": async (em) => {
        em.create(Todo, { task: "a" });
        em.create(Todo, { task: "b", notes: [{ text: "1" }, { text: "2" }] });
        em.create(Todo, { task: "c" });
        await em.flush();
      },
      read: (em) => em.find(Todo, {}, { populate: ["notes"] }),
      "flush of changes": async (em) => {
        const [first, second] = await em.find(Todo, {}, { orderBy: { id: 1 }, limit: 2 });
        first.n = 1;
        second.n = 2;
        em.remove(await em.findOneOrFail(Note, { text: "2" }));
        await em.flush();
      },
      insert: (em) => em.insert(Todo, { task: "d" }),
      "insert many": (em) => em.insertMany(Todo, [{ task: "e" }, { task: "f" }]),
      upsert: (em) => em.upsert(Note, { text: "1", todo: 1 }, { onConflictFields: ["text"] }),
      "native update": (em) => em.nativeUpdate(Todo, { task: "d" }, { n: 3 }),
      "native delete": (em) => em.nativeDelete(Todo, { task: "f" }),
      "query builder": (em) => em.qb(Todo).update({ n: 4 }).where({ task: "e" }).execute(),
      execute: (em) => em.execute("update todo set n = ? where task = ?", [5, "e"]),
      kysely: (em) =>
        em.getKysely().updateTable("todo").set({ n: 6 }).where("task", "=", "e").execute(),
      transactional: (em) =>
        em.transactional(async (outer) => {
          outer.create(Todo, { task: "g" });
          await outer.flush();
          await outer
            .transactional(async (nested) => {
              nested.create(Todo, { task: "lost" });
              await nested.flush();
              throw new Error("the application's own");
            })
            .catch(() => undefined);
          await outer.transactional(async (nested) => {
            nested.create(Todo, { task: "h" });
          });
        }),
      begin: async (em) => {
        await em.begin();
        em.create(Note, { text: "3" });
        await em.execute("update todo set n = 7 where task = 'h'");
        await em.commit();
      },
      "several at once": () =>
        Promise.all(["i", "j"].map((task) => orm.em.fork().insert(Todo, { task }))),
      "a request, after a reconnect": () => this.late("a request, after a reconnect"),
    };
    for (const [step, run] of Object.entries(steps)) {
      await withContext({ step }, () => run(orm.em.fork()));
    }
  }

  /** Connected before it was installed, and again later; by a middleware under its earlier name. */
  async late(step) {
    const { host, port, user, password, dbname: dbName } = this.address;
    const replicas = [{ name: "a replica", host, port, user, password, dbName }];
    const orm = await made(this.address, 1, { replicas });
    await orm.em.execute("select 1");
    await install(orm, this.options);
    const middleware = setContext((request) => ({ step: request.step }));
    for (const task of ["m", "n"]) {
      await new Promise((resolve, reject) => {
        const write = () => orm.em.fork().insert(Todo, { task });
        middleware({ step }, {}, () => write().then(resolve, reject));
      });
      await orm.close(true);
      await orm.connect();
    }
    await orm.close(true);
  }

  /** What the history says to each of some questions: the keys of the changes. */
  async reading() {
    const em = this.orm.em.fork();
    const keys = async (where) => {
      const orderBy = [{ committed_at: "asc" }, { commit_position: "asc" }, { ordinal: "asc" }];
      const found = await em.find(History, { table: "todo", ...where }, { orderBy });
      return found.map((change) => change.primary_key);
    };
    const found = {
      created: await keys({ operation: "CREATE" }),
      updated: await keys({ operation: "UPDATE" }),
      deleted: await keys({ operation: "DELETE" }),
      before: await keys({ before: { n: 1 } }),
      after: await keys({ after: { task: "b" } }),
      context: await keys({ context: { user_id: "ann" } }),
    };
    const change = await em.findOneOrFail(History, { operation: "DELETE" });
    change.operation = "CREATE";
    await em.flush();
    em.create(History, { ...change, id: change.id.replace(/.$/, "0") });
    await em.flush();
    return { ...found, "deleted, after a flush": await keys({ operation: "DELETE" }) };
  }
}
