// Says who changed a table last, and then each change as it is captured, until it is stopped.
//
//     HISTORY_URL=http://127.0.0.1:8420 TOKEN=… node watch.mjs todo

import { Client } from "bemi/api";

const [table] = process.argv.slice(2);
const history = new Client({ url: process.env.HISTORY_URL, token: process.env.TOKEN });

function say({ operation, primary_key, context, committed_at }) {
  console.log(`${committed_at} ${operation} ${table} ${primary_key} by ${context.user_id ?? "nobody"}`);
}

const { changes } = await history.get("/changes", { query: { table, limit: 5 } });
changes.reverse().forEach(say);

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
// Behind the last one that was shown, so that none is missed in between.
const start = changes.at(-1)?.id ?? "now";
for await (const event of history.stream({ query: { table, start }, signal: stop.signal })) {
  if (event.type === "change") say(event.change);
  else console.log(`changes are missing: ${event.missing.cause}`);
}
