// Serves the application of this folder by Next.js, and asks it many things at once.
import assert from "node:assert/strict";
import { createServer } from "node:http";

import next from "next";

// What actions see, which answer with pages.
globalThis.seen = [];

const server = createServer((request, response) => handle(request, response));
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const { port } = server.address();
const url = `http://127.0.0.1:${port}`;
const app = next({ dev: true, dir: import.meta.dirname, hostname: "127.0.0.1", port });
const handle = app.getRequestHandler();
await app.prepare();

const ids = Array.from({ length: 200 }, (_, number) => String(number));
const headers = (id) => ({ "x-request-id": `req-${id}`, cookie: `user=${id}` });
const expected = (id, more) => ({ request_id: `req-${id}`, user_id: id, ...more, step: id });

async function put(id) {
  const answer = await fetch(`${url}/todos/${id}?x=1`, { method: "PUT", headers: headers(id) });
  assert.equal(answer.status, 200);
  return answer.json();
}
const route = { endpoint: "/todos/[id]", method: "PUT" };
assert.deepEqual(
  await Promise.all(ids.map(put)),
  ids.map((id) => expected(id, route)),
);

const page = await (await fetch(url)).text();
const [action] = /\$ACTION_ID_\w+/.exec(page);
async function post(id) {
  const body = new FormData();
  body.set(action, "");
  body.set("id", id);
  const answer = await fetch(url, {
    method: "POST",
    headers: { ...headers(id), origin: url },
    body,
  });
  assert.equal(answer.status, 200);
  await answer.text();
}
// Fewer, since each has a page for an answer.
const posts = ids.slice(0, 50);
await Promise.all(posts.map(post));
const called = { endpoint: "complete", method: "POST" };
assert.deepEqual(
  globalThis.seen.sort((one, other) => Number(one.step) - Number(other.step)),
  posts.map((id) => expected(id, called)),
);
console.log(`requests: ${ids.length}, actions: ${posts.length}`);
process.exit(0);
