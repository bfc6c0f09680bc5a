// In which context node-postgres calls the application: URL names the database.

import { currentContext, withContext } from "bemi";
import { install } from "bemi/pg";
import pg from "pg";

const client = install(new pg.Client(process.env.URL));
await withContext({ user_id: "opener" }, () => client.connect());

const notification = new Promise((told) => {
  client.on("notification", () => told(currentContext()));
});
await client.query("listen here");
await client.query("notify here");

const callbacks = [];
for (const text of ["select 1", "insert into todo (task) values ('called')", "commit"]) {
  await withContext(
    { user_id: "caller" },
    () =>
      new Promise((told) => {
        client.query({ text, callback: () => told(callbacks.push(currentContext().user_id)) });
      }),
  );
}
console.log(JSON.stringify({ notification: await notification, callbacks }));
await client.end();
