// A to-do list on Knex: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/knex";
import knex from "knex";

const db = install(knex({ client: "pg", connection: process.env.DATABASE_URL }));

async function add(task) {
  await db("todo").insert({ task });
}

async function completeAll() {
  await db.transaction(async (transaction) => {
    await transaction("todo").update({ done: true });
    await transaction("note").insert({ text: "all is done" });
  });
}

if (process.argv[2] === "tables") {
  await db.schema.createTable("todo", (table) => {
    table.bigIncrements("id");
    table.text("task").notNullable();
    table.boolean("done").defaultTo(false);
  });
  await db.schema.createTable("note", (table) => {
    table.bigIncrements("id");
    table.text("text").notNullable();
  });
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
