// A to-do list on Kysely: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/kysely";
import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));
const db = new Kysely({ dialect: new PostgresDialect({ pool }) });

async function add(task) {
  await db.insertInto("todo").values({ task }).execute();
}

async function completeAll() {
  await db.transaction().execute(async (transaction) => {
    await transaction.updateTable("todo").set({ done: true }).execute();
    await transaction.insertInto("note").values({ text: "all is done" }).execute();
  });
}

if (process.argv[2] === "tables") {
  await db.schema
    .createTable("todo")
    .addColumn("id", "bigserial", (column) => column.primaryKey())
    .addColumn("task", "text", (column) => column.notNull())
    .addColumn("done", "boolean", (column) => column.defaultTo(sql`false`))
    .execute();
  await db.schema
    .createTable("note")
    .addColumn("id", "bigserial", (column) => column.primaryKey())
    .addColumn("text", "text", (column) => column.notNull())
    .execute();
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await db.destroy();
