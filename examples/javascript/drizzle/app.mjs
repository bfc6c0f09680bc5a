// A to-do list on Drizzle: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/drizzle";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigserial, boolean, pgTable, text } from "drizzle-orm/pg-core";

const db = install(drizzle(process.env.DATABASE_URL));

const todo = pgTable("todo", {
  id: bigserial("id", { mode: "bigint" }).primaryKey(),
  task: text("task").notNull(),
  done: boolean("done").default(false),
});
const note = pgTable("note", {
  id: bigserial("id", { mode: "bigint" }).primaryKey(),
  text: text("text").notNull(),
});

async function add(task) {
  await db.insert(todo).values({ task });
}

async function completeAll() {
  await db.transaction(async (transaction) => {
    await transaction.update(todo).set({ done: true });
    await transaction.insert(note).values({ text: "all is done" });
  });
}

if (process.argv[2] === "tables") {
  await db.execute(sql`
    create table todo (id bigserial primary key, task text not null, done boolean default false)
  `);
  await db.execute(sql`create table note (id bigserial primary key, text text not null)`);
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await db.$client.end();
