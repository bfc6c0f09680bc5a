// TypeORM: one QueryRunner; for requests at once the pool of a data source.

import { withContext } from "bemi";
import { Change, ChangeSchema, install, setContext } from "bemi/typeorm";
import pg from "pg";
import { DataSource, EntitySchema } from "typeorm";

import { Block, inTurns, numbered } from "../library.mjs";

pg.types.setTypeParser(20, Number);

const Todo = new EntitySchema({
  name: "Todo",
  tableName: "todo",
  columns: {
    id: { type: "integer", primary: true, generated: "increment" },
    task: { type: "text", nullable: true },
    n: { type: "integer", nullable: true },
  },
  relations: { notes: { type: "one-to-many", target: "Note", inverseSide: "todo", cascade: true } },
});

const Note = new EntitySchema({
  name: "Note",
  tableName: "note",
  columns: {
    id: { type: "integer", primary: true, generated: "increment" },
    text: { type: "text", unique: true },
  },
  relations: {
    todo: {
      type: "many-to-one",
      target: "Todo",
      inverseSide: "notes",
      joinColumn: { name: "todo_id" },
    },
  },
});

function dataSource({ dbname: database, user: username, ...rest }, settings = {}) {
  return new DataSource({
    type: "postgres",
    ...rest,
    database,
    username,
    installExtensions: false,
    entities: [Todo, Note, ChangeSchema],
    ...settings,
  });
}

export class Library {
  async open(address, autocommit, plain, options) {
    this.address = address;
    this.options = options;
    this.source = dataSource(address, { poolSize: 1 });
    if (!plain) install(this.source, options);
    await this.source.initialize();
    this.runner = this.source.createQueryRunner();
    this.autocommit = autocommit;
    this.blocks = [];
  }

  async close() {
    await this.runner?.release();
    await this.source?.destroy();
    this.runner = this.source = undefined;
  }

  async query(statement, parameters) {
    if (!this.autocommit && !this.runner.isTransactionActive) await this.runner.startTransaction();
    return this.runner.query(numbered(statement, parameters.length), parameters, true);
  }

  async run(statement, parameters) {
    const { records } = await this.query(statement, parameters);
    return records.map(Object.values);
  }

  async count(statement, parameters) {
    return (await this.query(statement, parameters)).affected;
  }

  async many(statement, rows) {
    for (const row of rows) await this.query(statement, row);
  }

  async commit() {
    if (this.runner.isTransactionActive) await this.runner.commitTransaction();
  }

  async rollback() {
    if (this.runner.isTransactionActive) await this.runner.rollbackTransaction();
  }

  async enter() {
    const { manager } = this.runner;
    this.blocks.push(await Block.entered((within) => manager.transaction(within)));
  }

  async leave(failed) {
    await this.blocks.pop().left(failed);
  }

  async concurrent(writes, requests) {
    const source = install(dataSource(this.address, { poolSize: 5 }), this.options);
    await source.initialize();
    const todos = source.getRepository(Todo);
    await inTurns(writes, requests, {
      read: () => todos.count(),
      alone: (task) => source.query("insert into todo (task) values ($1)", [task]),
      together: (tasks) =>
        source.transaction(async (manager) => {
          for (const task of tasks) await manager.save(Todo, { task });
        }),
    });
    await source.destroy();
  }

  /** Each step in a context of its own, which has its name. */
  async models() {
    const { source } = this;
    const todos = source.getRepository(Todo);
    const steps = {
      create: () => todos.save({ task: "a" }),
      "create with relations": () =>
        todos.save({ task: "b", notes: [{ text: "1" }, { text: "2" }] }),
      "create several": () => todos.save([{ task: "c" }, { task: "d" }]),
      "insert in bulk": () => todos.insert([{ task: "e" }, { task: "f" }, { task: "g" }]),
      upsert: () => source.getRepository(Note).upsert({ text: "1", todo: { id: 1 } }, ["text"]),
      read: () => todos.find({ relations: { notes: true } }),
      "update a row": async () => {
        const found = await todos.findOneByOrFail({ task: "c" });
        found.n = 2;
        await todos.save(found);
      },
      "update rows": () => todos.update({ task: "d" }, { n: 3 }),
      increment: () => todos.increment({ task: "d" }, "n", 1),
      "query builder": () =>
        todos.createQueryBuilder().update().set({ n: 5 }).where("task = :t", { t: "e" }).execute(),
      query: () => source.query("update todo set n = $1 where task = $2", [6, "f"]),
      transaction: () =>
        source.transaction(async (manager) => {
          await manager.save(Todo, { task: "h" });
          await manager
            .transaction(async (nested) => {
              await nested.save(Todo, { task: "lost" });
              throw new Error("the application's own");
            })
            .catch(() => undefined);
          await manager.transaction((nested) => nested.save(Todo, { task: "i" }));
        }),
      "a runner's transaction": async () => {
        const runner = source.createQueryRunner();
        await runner.startTransaction();
        await runner.manager.insert(Note, { text: "3" });
        await runner.manager.delete(Note, { text: "2" });
        await runner.commitTransaction();
        await runner.release();
      },
      stream: async () => {
        const runner = source.createQueryRunner();
        const text = "insert into todo (task) values ($1) returning task";
        const stream = await runner.stream(text, ["j"]);
        for await (const row of stream) if (row.task !== "j") throw new Error(row.task);
        await runner.release();
      },
      remove: async () => {
        const found = await todos.findOneByOrFail({ task: "g" });
        await todos.remove(found);
      },
      "delete rows": () => todos.delete({ task: "f" }),
      "several at once": () => Promise.all(["k", "l"].map((task) => todos.insert({ task }))),
      "a request, with replicas": () => this.replicated("a request, with replicas"),
    };
    // The only connection of the pool.
    await this.runner.release();
    for (const [step, run] of Object.entries(steps)) await withContext({ step }, run);
  }

  /** Installed late, by a middleware under its earlier name; its pools are made twice. */
  async replicated(step) {
    const { host, port, user: username, password, dbname: database } = this.address;
    const server = { host, port, username, password, database };
    const replication = { master: server, slaves: [server] };
    const source = await dataSource(this.address, { replication }).initialize();
    const middleware = setContext(source, (request) => ({ step: request.step }));
    const todos = source.getRepository(Todo);
    for (const task of ["m", "n"]) {
      await new Promise((resolve, reject) => {
        const write = () => todos.insert({ task }).then(() => todos.count());
        middleware({ step }, {}, () => write().then(resolve, reject));
      });
      await source.destroy();
      await source.initialize();
    }
    await source.destroy();
  }

  /** What the history says to each of some questions: the keys of the changes. */
  async reading() {
    const changes = this.source.getRepository(Change);
    const keys = async (where) => {
      const order = Change.asc();
      const found = await changes.find({ where: { table: "todo", ...where }, order });
      return found.map((change) => change.primary_key);
    };
    const [newest] = await changes.find({ order: Change.desc(), take: 1 });
    const changed = { ...Change.fieldChanged("n"), ...Change.context({ user_id: "ann" }) };
    const refused = await changes.delete({ id: newest.id }).catch((error) => error.message);
    return {
      created: await keys(Change.created()),
      updated: await keys(Change.updated()),
      deleted: await keys(Change.deleted()),
      before: await keys(Change.before({ n: 1 })),
      after: await keys(Change.after({ task: "b" })),
      "after, not": await keys({ ...Change.created(), ...Change.afterNot({ task: "b" }) }),
      "before, not": await keys(Change.beforeNot({ n: 1 })),
      context: await keys(Change.context({ user_id: "ann" })),
      "context, large": await keys(Change.context({ large: 12345678901234567890n })),
      "context, not": await keys(Change.contextNot({ user_id: "ann" })),
      "field changed": await keys(Change.fieldChanged("n")),
      "field changed, by ann": await keys(changed),
      hostile: await keys({ ...Change.fieldChanged("'\"%:x"), ...Change.after({ "'": ":y" }) }),
      newest: newest.primary_key,
      diff: newest.diff(),
      refused,
    };
  }
}
