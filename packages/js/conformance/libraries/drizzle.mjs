// Drizzle on node-postgres: its transactions are functions, a nested one is a savepoint.

import { install } from "bemi/drizzle";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, pgTable, serial, text } from "drizzle-orm/pg-core";

import { Database, lists, pooled } from "../library.mjs";

const todo = pgTable("todo", {
  id: serial("id").primaryKey(),
  task: text("task"),
  n: integer("n"),
});

export class Library extends Database {
  async connect({ dbname: database, ...address }, max) {
    return drizzle({ client: pooled({ ...address, database, max }) });
  }

  install(options) {
    install(this.database, options);
  }

  disconnect() {
    return this.database.$client.end();
  }

  begin(parent, run) {
    return parent.transaction(run).catch((error) => {
      throw error.cause ?? error;
    });
  }

  async query(on, statement, parameters) {
    const [first, ...rest] = parameters.length ? statement.split("{}") : [statement];
    const asked = sql.raw(first);
    for (const [index, part] of rest.entries()) {
      asked.append(sql`${parameters[index]}`).append(sql.raw(part));
    }
    try {
      const result = await on.execute(asked);
      return { rows: lists(result), count: result.rowCount };
    } catch (error) {
      throw error.cause ?? error; // what the server said
    }
  }

  async models() {
    const { database } = this;
    await database.insert(todo).values({ task: "one" });
    await database
      .insert(todo)
      .values([{ task: "two" }, { task: "three" }])
      .returning();
    await database.update(todo).set({ n: 1 }).where(eq(todo.task, "one"));
    const again = { id: 1, task: "again" };
    await database.insert(todo).values(again).onConflictDoUpdate({ target: todo.id, set: again });
    const prepared = database
      .insert(todo)
      .values({ task: sql.placeholder("task") })
      .prepare("insert_todo");
    for (const task of ["four", "five"]) await prepared.execute({ task });
    await database.transaction(async (outer) => {
      await outer.insert(todo).values({ task: "seven" });
      const nested = outer.transaction(async (inner) => {
        await inner.insert(todo).values({ task: "lost" });
        inner.rollback();
      });
      await nested.catch(() => undefined);
      await outer.insert(todo).values({ task: "eight" });
    });
    await database.delete(todo).where(eq(todo.task, "two"));
    const gone = database.$with("gone").as(database.delete(todo).where(eq(todo.id, 1)).returning());
    await database.with(gone).select().from(gone);
    return (await database.select().from(todo).orderBy(todo.id)).map(({ task }) => task);
  }
}
