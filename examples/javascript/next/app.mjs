// A to-do list in a route of Next.js: who asked, and for what, is in each change.
//
//     node app.mjs tables
//     node app.mjs
//
// The handlers are those of app/todos/route.js and app/todos/[id]/route.js, called here as Next.js
// calls them, which would take a third of a gigabyte to install.

import { install } from "bemi/pg";
import { withRouteContext } from "bemi/next";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

// Stands for what finds out who asks, such as Auth.js.
const session = async (request) => ({ user: { id: request.headers.get("x-user") } });
const options = { context: async (request) => ({ user_id: (await session(request)).user.id }) };

const POST = withRouteContext(async (request) => {
  const { task } = await request.json();
  await pool.query("insert into todo (task) values ($1)", [task]);
  return new Response(null, { status: 201 });
}, options);

const PUT = withRouteContext(async (_request, { params }) => {
  const { id } = await params;
  await pool.query("update todo set done = true where id = $1", [id]);
  return new Response(null, { status: 204 });
}, options);

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  const url = "http://127.0.0.1/todos";
  const headers = { "x-user": "ada" };
  await POST(new Request(url, { method: "POST", headers, body: '{"task": "Buy milk"}' }), {
    params: Promise.resolve({}),
  });
  await PUT(new Request(`${url}/1`, { method: "PUT", headers }), {
    params: Promise.resolve({ id: "1" }),
  });
}
await pool.end();
