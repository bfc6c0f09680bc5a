// Kysely: transactions that are ended by hand, and savepoints in them.

import { install } from "bemi/kysely";
import { CompiledQuery, Kysely, PostgresDialect } from "kysely";
import Cursor from "pg-cursor";

import { Database, numbered, pooled } from "../library.mjs";

export class Library extends Database {
  async connect({ dbname: database, ...address }, max) {
    this.pool = pooled({ ...address, database, max });
    return new Kysely({ dialect: new PostgresDialect({ pool: this.pool, cursor: Cursor }) });
  }

  install(options) {
    install(this.pool, options);
  }

  disconnect() {
    return this.database.destroy();
  }

  begin(_parent, run) {
    return this.database.transaction().execute(run);
  }

  async enter() {
    const outer = this.blocks[0]?.transaction;
    const name = `block_${this.blocks.length}`;
    if (!outer) {
      this.blocks.push({ transaction: await this.database.startTransaction().execute() });
    } else {
      await outer.savepoint(name).execute();
      this.blocks.push({ transaction: outer, name });
    }
  }

  async leave(failed) {
    const { transaction, name } = this.blocks.pop();
    if (name === undefined) {
      await (failed ? transaction.rollback() : transaction.commit()).execute();
    } else if (failed) {
      await transaction.rollbackToSavepoint(name).execute();
    } else {
      await transaction.releaseSavepoint(name).execute();
    }
  }

  async query(on, statement, parameters) {
    const text = numbered(statement, parameters.length);
    const { rows, numAffectedRows } = await on.executeQuery(CompiledQuery.raw(text, parameters));
    return { rows: rows.map(Object.values), count: Number(numAffectedRows ?? rows.length) };
  }

  async models() {
    const { database } = this;
    const insert = (on, values) => on.insertInto("todo").values(values);
    await insert(database, { task: "one" }).execute();
    await insert(database, [{ task: "two" }, { task: "three" }])
      .returning("id")
      .execute();
    await database.updateTable("todo").set({ n: 1 }).where("task", "=", "one").execute();
    const again = insert(database, { id: 1, task: "again" });
    await again.onConflict((on) => on.column("id").doUpdateSet({ task: "again" })).execute();
    const streamed = insert(database, [{ task: "four" }, { task: "five" }]).returning("task");
    for await (const _ of streamed.stream(1));
    await database.transaction().execute(async (outer) => {
      await insert(outer, { task: "seven" }).execute();
      await insert(outer, { task: "eight" }).execute();
    });
    const lost = database.transaction().execute(async (outer) => {
      await insert(outer, { task: "lost" }).execute();
      throw new Error("lost");
    });
    await lost.catch(() => undefined);
    await database.deleteFrom("todo").where("task", "=", "two").execute();
    await database
      .with("gone", (on) => on.deleteFrom("todo").where("id", "=", 1).returning("id"))
      .selectFrom("gone")
      .selectAll()
      .execute();
    const left = await database.selectFrom("todo").select("task").orderBy("id").execute();
    return left.map(({ task }) => task);
  }
}
