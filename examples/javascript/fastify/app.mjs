// A to-do list behind Fastify: who asked, and for what, is in each change.
//
//     node app.mjs tables
//     node app.mjs

import { contextPlugin } from "bemi/fastify";
import { install } from "bemi/pg";
import fastify from "fastify";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

const app = fastify();
app.register(contextPlugin);
app.decorateRequest("user", null);
app.addHook("onRequest", async (request) => {
  // Stands for what finds out who asks, such as @fastify/jwt.
  request.user = { id: request.headers["x-user"] };
});

app.post("/todos", async (request) => {
  const text = "insert into todo (task) values ($1) returning id";
  const { rows } = await pool.query(text, [request.body.task]);
  return rows[0];
});

app.put("/todos/:id", async (request) => {
  await pool.query("update todo set done = true where id = $1", [request.params.id]);
  return {};
});

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  const url = await app.listen({ port: 0, host: "127.0.0.1" });
  const headers = { "content-type": "application/json", "x-user": "ada" };
  await fetch(`${url}/todos`, { method: "POST", headers, body: '{"task": "Buy milk"}' });
  await fetch(`${url}/todos/1`, { method: "PUT", headers, body: "{}" });
  await app.close();
}
await pool.end();
