// A to-do list on node-postgres: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/pg";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

async function add(task) {
  await pool.query("insert into todo (task) values ($1)", [task]);
}

async function completeAll() {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("update todo set done = true");
    await client.query("insert into note (text) values ($1)", ["all is done"]);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
}

if (process.argv[2] === "tables") {
  await pool.query(`
    create table todo (id bigserial primary key, task text not null, done boolean default false);
    create table note (id bigserial primary key, text text not null);
  `);
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await pool.end();
