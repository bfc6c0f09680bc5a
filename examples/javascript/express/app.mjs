// A to-do list behind Express: who asked, and for what, is in each change.
//
//     node app.mjs tables
//     node app.mjs

import { contextMiddleware } from "bemi/express";
import { install } from "bemi/pg";
import express from "express";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

const app = express();
app.use(contextMiddleware());
app.use(express.json());
app.use((request, _response, next) => {
  // Stands for what finds out who asks, such as Passport.
  request.user = { id: request.get("x-user") };
  next();
});

app.post("/todos", async (request, response) => {
  const text = "insert into todo (task) values ($1) returning id";
  const { rows } = await pool.query(text, [request.body.task]);
  response.status(201).json(rows[0]);
});

app.put("/todos/:id", async (request, response) => {
  await pool.query("update todo set done = true where id = $1", [request.params.id]);
  response.sendStatus(204);
});

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  const server = app.listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const url = `http://127.0.0.1:${server.address().port}`;
  const headers = { "content-type": "application/json", "x-user": "ada" };
  await fetch(`${url}/todos`, { method: "POST", headers, body: '{"task": "Buy milk"}' });
  await fetch(`${url}/todos/1`, { method: "PUT", headers });
  server.close();
}
await pool.end();
