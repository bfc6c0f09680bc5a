import assert from "node:assert/strict";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";

import { initTRPC } from "@trpc/server";
import { type CreateHTTPContextOptions, createHTTPServer } from "@trpc/server/adapters/standalone";

import { withContext } from "bemi";
import { bemiTRPCMiddleware, contextMiddleware } from "bemi/trpc";

import { answer, CALLER, json, manyAtOnce, type Seen, sent, TRACE, work } from "./requests.js";

const createContext = ({ req }: CreateHTTPContextOptions) => {
  const id = req.headers["x-user"];
  return { req, session: id === undefined ? null : { user: { id } } };
};
const t = initTRPC.context<typeof createContext>().create();
const procedure = t.procedure.use(contextMiddleware());
const old = t.procedure.use(bemiTRPCMiddleware(({ path }) => ({ old: path })));
const named = t.procedure.use(
  contextMiddleware({ context: async ({ path }) => Promise.resolve({ named: path }) }),
);

const text = (input: unknown): string => String(input);
const router = t.router({
  todo: t.router({
    complete: procedure.input(text).mutation(({ input, ctx }) => {
      assert.ok(ctx.req, "what the application's procedures are given is theirs");
      return work(input);
    }),
    list: procedure.query(() => sent()),
  }),
  old: old.query(() => sent()),
  named: named.query(() => sent()),
});

let server: Server;
let url: string;

before(async () => {
  server = createHTTPServer({ router, createContext });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => server.close());

async function called(path: string, init: RequestInit = {}): Promise<Seen> {
  const { result } = (await answer(`${url}/${path}`, init)) as { result: { data: Seen } };
  return result.data;
}

test("many calls at once, each with its own context", async () => {
  await manyAtOnce(
    (id, headers) => called("todo.complete", json("POST", id, { ...headers, "x-user": id })),
    (id) => ({ endpoint: "todo.complete", method: "POST", user_id: id }),
  );
});

test("calls of one batch have theirs, too", async () => {
  const body = json("POST", { 0: "1", 1: "2" }, { "x-request-id": "req-1" });
  const answers = await answer(`${url}/todo.complete,todo.complete?batch=1`, body);
  const steps = (answers as unknown as { result: { data: Seen } }[]).map(
    ({ result }) => result.data,
  );
  assert.deepEqual(
    steps.map((seen) => seen["step"]),
    ["1", "2"],
  );
});

test("what is taken of a caller, and what the application adds", async () => {
  assert.deepEqual(await called("todo.list", { headers: CALLER }), {
    request_id: "req-1",
    trace_id: TRACE,
    endpoint: "todo.list",
    method: "GET",
  });
  assert.equal((await called("named"))["named"], "named");
  assert.equal((await called("old"))["old"], "old");
});

test("inside of a request that has a context, ids and user are that one's", async () => {
  const caller = router.createCaller({ req: undefined as never, session: null });
  await withContext({ request_id: "outer", user_id: () => 42, endpoint: "/trpc" }, async () => {
    assert.deepEqual(await caller.todo.list(), {
      request_id: "outer",
      user_id: 42,
      endpoint: "todo.list",
    });
  });
});
