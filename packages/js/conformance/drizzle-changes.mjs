// Writes with Drizzle, or reads what the history has of it: SOURCE_URL and HISTORY_URL name the two.

import { withContext } from "bemi";
import * as bemi from "bemi/drizzle";
import { and, eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { boolean, pgTable, serial, text } from "drizzle-orm/pg-core";

const { changes } = bemi;

async function write() {
  const todo = pgTable("todo", {
    id: serial("id").primaryKey(),
    task: text("task"),
    done: boolean("done").default(false),
  });
  const db = bemi.install(drizzle(process.env.SOURCE_URL));
  await withContext({ user_id: "ann", tags: ["a", "b"] }, () =>
    db.insert(todo).values([{ task: "a" }, { task: "b" }, { task: 'it\'s */ % "c"' }]),
  );
  await withContext({ user_id: 7, at: new Date(0) }, () =>
    db.update(todo).set({ done: true }).where(eq(todo.id, 1)),
  );
  await db.delete(todo).where(eq(todo.id, 2));
  await withContext({ user_id: "ann" }, () =>
    db.update(todo).set({ task: null }).where(eq(todo.id, 3)),
  );
  await db.$client.end();
}

async function read() {
  const db = drizzle(process.env.HISTORY_URL);
  const asked = (...conditions) =>
    db
      .select()
      .from(changes)
      .where(and(...conditions))
      .orderBy(...bemi.oldestFirst());
  const keys = async (...conditions) => (await asked(...conditions)).map((each) => each.primaryKey);
  const all = await asked(sql`true`);
  const found = {
    created: await keys(bemi.created()),
    updated: await keys(bemi.updated()),
    deleted: await keys(bemi.deleted()),
    before: await keys(bemi.before({ task: "b" })),
    before_not: await keys(bemi.beforeNot({ task: "b" })),
    after: await keys(bemi.after({ task: 'it\'s */ % "c"' })),
    after_not: await keys(bemi.updated(), bemi.afterNot({ done: true })),
    context: await keys(bemi.context({ user_id: "ann" })),
    context_within: await keys(bemi.context({ tags: ["b"] })),
    context_as_sent: await keys(bemi.context({ at: new Date(0) })),
    context_not: await keys(bemi.contextNot({ user_id: "ann" })),
    fields: await Promise.all(["done", "task", "id"].map((name) => keys(bemi.fieldChanged(name)))),
    diffs: all.map((change) => bemi.diff(change)),
    newest: (
      await db
        .select()
        .from(changes)
        .orderBy(...bemi.newestFirst())
        .limit(2)
    ).map((change) => change.operation),
    types: [typeof all[0].position, all[0].committedAt.constructor.name, typeof all[0].ordinal],
  };
  await db.$client.end();
  console.log(JSON.stringify(found));
}

await (process.argv[2] === "write" ? write() : read());
