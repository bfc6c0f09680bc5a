// A to-do list on MikroORM: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { EntitySchema, MikroORM } from "@mikro-orm/postgresql";
import { withContext } from "bemi";
import { install } from "bemi/mikro-orm";

const Todo = new EntitySchema({
  name: "Todo",
  tableName: "todo",
  properties: {
    id: { type: "bigint", primary: true },
    task: { type: "text" },
    done: { type: "boolean", default: false },
  },
});

const Note = new EntitySchema({
  name: "Note",
  tableName: "note",
  properties: {
    id: { type: "bigint", primary: true },
    text: { type: "text" },
  },
});

const orm = await MikroORM.init({
  clientUrl: process.env.DATABASE_URL,
  entities: [Todo, Note],
});
await install(orm);

async function add(task) {
  const em = orm.em.fork();
  em.create(Todo, { task });
  await em.flush();
}

async function completeAll() {
  const em = orm.em.fork();
  for (const todo of await em.find(Todo, { done: false })) todo.done = true;
  em.create(Note, { text: "all is done" });
  await em.flush(); // one transaction, with one message
}

if (process.argv[2] === "tables") {
  await orm.em.execute(`
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
await orm.close();
