// A to-do list on TypeORM: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/typeorm";
import { DataSource, EntitySchema } from "typeorm";

const Todo = new EntitySchema({
  name: "Todo",
  tableName: "todo",
  columns: {
    id: { type: "bigint", primary: true, generated: "increment" },
    task: { type: "text" },
    done: { type: "boolean", default: false },
  },
});

const Note = new EntitySchema({
  name: "Note",
  tableName: "note",
  columns: {
    id: { type: "bigint", primary: true, generated: "increment" },
    text: { type: "text" },
  },
});

const source = install(
  new DataSource({ type: "postgres", url: process.env.DATABASE_URL, entities: [Todo, Note] }),
);

async function add(task) {
  await source.getRepository(Todo).save({ task });
}

async function completeAll() {
  await source.transaction(async (manager) => {
    const todos = await manager.find(Todo);
    await manager.save(Todo, todos.map((todo) => ({ ...todo, done: true })));
    await manager.insert(Note, { text: "all is done" });
  });
}

await source.initialize();
if (process.argv[2] === "tables") {
  await source.synchronize();
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await source.destroy();
