import assert from "node:assert/strict";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { setContext } from "bemi";
import { bemiMiddleware, contextMiddleware } from "bemi/express";
import express, { type Request, type RequestHandler } from "express";

import { answer, CALLER, json, manyAtOnce, sent, TRACE, work } from "./requests.js";

let server: Server;
let url: string;

before(async () => {
  const app = express();
  const seen: RequestHandler = (_request, response) => void response.json(sent());
  const trusting = contextMiddleware({ trust: ["user_id", "plan"] });
  const old = bemiMiddleware((request) => ({ user_id: request.get("x-user"), tenant: 7 }));
  app.use("/trusting", trusting, seen);
  app.use("/old", old, seen);
  app.use(
    contextMiddleware({
      context: (request) => {
        if (request.get("x-fails")) throw new Error("of the application's");
        return request.get("x-tenant") ? { tenant: request.get("x-tenant") } : null;
      },
    }),
  );
  app.use(express.json());
  app.use((request: Request & { user?: unknown }, _response, next) => {
    const id = request.get("x-user");
    if (id !== undefined) request.user = { id, password: "p" };
    next();
  });
  const todos = express.Router();
  todos.put("/:id", async (request, response) => {
    response.json(await work((request.body as { id: string }).id));
  });
  todos.get("/", seen);
  app.use("/todos", todos);
  app.get("/a/:b{/:c}", seen);
  app.post("/set", (_request, response) => {
    setContext({ all: "mine" });
    response.json(sent());
  });
  app.use(seen);
  await new Promise<void>((done) => (server = app.listen(0, "127.0.0.1", () => done())));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => server.close());

test("many requests at once, each with its own context", async () => {
  await manyAtOnce(
    (id, headers) =>
      answer(`${url}/todos/${id}?x=1`, json("PUT", { id }, { ...headers, "x-user": id })),
    (id) => ({ endpoint: "/todos/:id", method: "PUT", user_id: id }),
  );
});

test("what is taken of a caller, who means well or not", async () => {
  const { request_id: id, ...seen } = await answer(`${url}/todos`);
  assert.match(String(id), /^[0-9a-f-]{36}$/);
  assert.deepEqual(seen, { endpoint: "/todos", method: "GET" });
  assert.deepEqual(await answer(`${url}/todos`, { headers: CALLER }), {
    request_id: "req-1",
    trace_id: TRACE,
    endpoint: "/todos",
    method: "GET",
  });
  const { request_id: own, ...trusting } = await answer(`${url}/trusting`, { headers: CALLER });
  assert.notEqual(own, "req-1");
  assert.deepEqual(trusting, {
    user_id: "caller",
    plan: "free",
    endpoint: "/trusting",
    method: "GET",
  });
});

test("the template of the route, or the path where there is none", async () => {
  assert.equal((await answer(`${url}/a/b/c`))["endpoint"], "/a/:b{/:c}");
  assert.equal((await answer(`${url}/nothing/here?token=t`))["endpoint"], "/nothing/here");
});

test("the application's own values, which may fail", async () => {
  assert.equal((await answer(`${url}/todos`, { headers: { "x-tenant": "t" } }))["tenant"], "t");
  const seen = await answer(`${url}/todos`, { headers: { "x-fails": "1" } });
  assert.equal(seen["endpoint"], "/todos");
  assert.deepEqual(await answer(`${url}/set`, { method: "POST" }), { all: "mine" });
});

test("the name of the earlier packages", async () => {
  const seen = await answer(`${url}/old/x`, { headers: { "x-user": "ann" } });
  assert.deepEqual([seen["user_id"], seen["tenant"], seen["endpoint"]], ["ann", 7, "/old/x"]);
});

test("options that can't be meant are told at once", () => {
  const wrong = { trust: "user_id" } as unknown as { trust: string[] };
  assert.throws(() => contextMiddleware(wrong), /trust takes names/);
  const async = { context: (async () => ({})) as unknown as () => object };
  assert.throws(() => contextMiddleware(async as object), /not async/);
});
