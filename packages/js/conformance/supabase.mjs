// Supabase's client against a server that only remembers what it is asked: prints each request.

import { once } from "node:events";
import { createServer } from "node:http";

import { createClient } from "@supabase/supabase-js";
import { withContext } from "bemi";
import { fetchWithContext, setContext } from "bemi/supabase";
import WebSocket from "ws";

const asked = [];
const server = createServer((request, response) => {
  asked.push({ method: request.method, path: request.url, headers: request.headers });
  response.setHeader("content-type", "application/json");
  response.end("[]");
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const url = `http://127.0.0.1:${server.address().port}`;
const transport = { realtime: { transport: WebSocket } };
const options = { ...transport, global: { fetch: fetchWithContext() } };
const client = createClient(url, "anon-key", options);

await client.from("todo").insert({ task: "without" });
await Promise.all(
  ["ann", "bob"].map((user) =>
    withContext({ page: user, note: "Zoë */ '", request_id: `req-${user}` }, () =>
      client.from("todo").insert({ task: user }),
    ),
  ),
);
await withContext({ page: "rpc" }, () => client.rpc("add_one", {}, { head: false }));

const own = createClient(url, "anon-key", transport);
setContext(own, { page: "edge", password: "p" });
await own.from("todo").update({ task: "edge" }).eq("id", 1);

server.close();
server.closeAllConnections();
console.log(JSON.stringify(asked));
