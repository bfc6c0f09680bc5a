// A to-do list behind tRPC: who asked, and by which procedure, is in each change.
//
//     node app.mjs tables
//     node app.mjs

import { initTRPC } from "@trpc/server";
import { createHTTPServer } from "@trpc/server/adapters/standalone";
import { install } from "bemi/pg";
import { contextMiddleware } from "bemi/trpc";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

const t = initTRPC.context().create();
const procedure = t.procedure.use(contextMiddleware());

const router = t.router({
  todo: t.router({
    add: procedure.input(String).mutation(async ({ input }) => {
      await pool.query("insert into todo (task) values ($1)", [input]);
    }),
    complete: procedure.input(Number).mutation(async ({ input }) => {
      await pool.query("update todo set done = true where id = $1", [input]);
    }),
  }),
});

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  const server = createHTTPServer({
    router,
    // `user` stands for what finds out who asks.
    createContext: ({ req }) => ({ req, user: { id: req.headers["x-user"] } }),
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${server.address().port}`;
  const headers = { "content-type": "application/json", "x-user": "ada" };
  await fetch(`${url}/todo.add`, { method: "POST", headers, body: '"Buy milk"' });
  await fetch(`${url}/todo.complete`, { method: "POST", headers, body: "1" });
  server.close();
}
await pool.end();
