// Knex: its transactions are functions, a nested one is a savepoint.

import { install } from "bemi/knex";
import knex from "knex";

import { Database, lists } from "../library.mjs";

/** What the server said, without the statement, in which savepoints have numbers. */
async function said(promise) {
  try {
    return await promise;
  } catch (error) {
    error.message = error.message.split(" - ").at(-1);
    throw error;
  }
}

export class Library extends Database {
  async connect({ dbname: database, ...address }, max) {
    const connection = { ...address, database };
    return knex({ client: "pg", connection, pool: { min: 0, max } });
  }

  install(options) {
    install(this.database, options);
  }

  disconnect() {
    return this.database.destroy();
  }

  begin(parent, run) {
    return said(parent.transaction(run));
  }

  async query(on, statement, parameters) {
    const result = await said(on.raw(statement.replaceAll("{}", "?"), parameters));
    return { rows: lists(result), count: result.rowCount };
  }

  async models() {
    const { database } = this;
    await database("todo").insert({ task: "one" });
    await database("todo")
      .insert([{ task: "two" }, { task: "three" }])
      .returning("id");
    await database("todo").where({ task: "one" }).update({ n: 1 });
    await database("todo").insert({ id: 1, task: "again" }).onConflict("id").merge();
    await database.batchInsert("todo", [{ task: "four" }, { task: "five" }, { task: "six" }], 2);
    await database.transaction(async (outer) => {
      await outer("todo").insert({ task: "seven" });
      const nested = outer.transaction(async (inner) => {
        await inner("todo").insert({ task: "lost" });
        throw new Error("lost");
      });
      await nested.catch(() => undefined);
      await outer("todo").insert({ task: "eight" });
    });
    await database("todo").where({ task: "two" }).del();
    await database
      .with("gone", database("todo").where({ n: 1 }).del().returning("id"))
      .from("gone");
    const texts = [];
    for await (const row of database("todo").orderBy("id").stream()) texts.push(row.task);
    return texts;
  }
}
