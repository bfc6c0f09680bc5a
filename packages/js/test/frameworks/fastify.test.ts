import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mergeContext } from "bemi";
import { contextPlugin } from "bemi/fastify";
import fastify, { type FastifyRequest } from "fastify";

import { answer, CALLER, json, manyAtOnce, sent, TRACE, work } from "./requests.js";

const app = fastify();
let url: string;

before(async () => {
  await app.register(contextPlugin, {
    context: (request: FastifyRequest) => ({ tenant: request.headers["x-tenant"] }),
  });
  app.addHook("onRequest", async (request) => {
    mergeContext({ hook: "onRequest" });
    const id = request.headers["x-user"];
    if (id !== undefined) Object.assign(request, { user: { sub: id } });
  });
  await app.register(
    async (todos) => {
      todos.put<{ Body: { id: string } }>("/:id", async (request) => work(request.body.id));
      todos.get("/", async () => sent());
    },
    { prefix: "/todos" },
  );
  app.setNotFoundHandler(async (_request, reply) => reply.code(200).send(sent()));
  url = await app.listen({ port: 0, host: "127.0.0.1" });
});

after(() => app.close());

test("many requests at once, each with its own context", async () => {
  await manyAtOnce(
    (id, headers) =>
      answer(`${url}/todos/${id}`, json("PUT", { id }, { ...headers, "x-user": id })),
    (id) => ({ endpoint: "/todos/:id", method: "PUT", user_id: id, hook: "onRequest" }),
  );
});

test("a body that comes in pieces, by events that are nobody's", async () => {
  const pieces = ['{"id"', ': "7', '"}'];
  const body = new ReadableStream({
    async pull(stream) {
      await new Promise((done) => setTimeout(done, 5));
      const piece = pieces.shift();
      if (piece === undefined) stream.close();
      else stream.enqueue(new TextEncoder().encode(piece));
    },
  });
  const headers = { "content-type": "application/json", "x-request-id": "req-7" };
  const request = { method: "PUT", headers, body, duplex: "half" } as RequestInit;
  assert.deepEqual(await answer(`${url}/todos/7`, request), {
    request_id: "req-7",
    endpoint: "/todos/:id",
    method: "PUT",
    hook: "onRequest",
    step: "7",
  });
});

test("what is taken of a caller, and what the application adds", async () => {
  const headers = { ...CALLER, "x-tenant": "t" };
  assert.deepEqual(await answer(`${url}/todos`, { headers }), {
    request_id: "req-1",
    trace_id: TRACE,
    endpoint: "/todos",
    method: "GET",
    tenant: "t",
    hook: "onRequest",
  });
  assert.equal((await answer(`${url}/nothing?token=t`))["endpoint"], "/nothing");
});

test("options that can't be meant fail", async () => {
  const wrong = { trust: "user_id" as unknown as string[] };
  await assert.rejects(async () => fastify().register(contextPlugin, wrong), /trust takes names/);
});
