import assert from "node:assert/strict";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";

import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { expressMiddleware } from "@as-integrations/express5";
import { currentContext, withContext } from "bemi";
import { BemiApolloServerPlugin, contextPlugin } from "bemi/apollo";
import { contextMiddleware } from "bemi/express";
import express from "express";

import { answer, CALLER, json, manyAtOnce, type Seen, sent, TRACE, work } from "./requests.js";

interface Context {
  user?: { id: string };
}

const typeDefs = `
  type Query { todos: String, others: String }
  type Mutation { completeTodo(id: String!): String }
`;
const resolvers = {
  Query: { todos: () => JSON.stringify(sent()), others: () => JSON.stringify(sent()) },
  Mutation: {
    completeTodo: async (_: unknown, { id }: { id: string }) => JSON.stringify(await work(id)),
  },
};
const context = async ({
  req,
}: {
  req: { headers: Record<string, unknown> };
}): Promise<Context> => {
  const id = req.headers["x-user"];
  return Promise.resolve(typeof id === "string" ? { user: { id } } : {});
};

const alone = new ApolloServer<Context>({
  typeDefs,
  resolvers,
  allowBatchedHttpRequests: true,
  plugins: [contextPlugin()],
});
const behind = new ApolloServer<Context>({
  typeDefs,
  resolvers,
  plugins: [BemiApolloServerPlugin(({ request }) => ({ variables: request.variables }))],
});
let server: Server;
let url: string;
let inside: string;

before(async () => {
  ({ url } = await startStandaloneServer(alone, { context, listen: { port: 0 } }));
  await behind.start();
  const app = express();
  app.use("/graphql", contextMiddleware(), express.json(), expressMiddleware(behind, { context }));
  await new Promise<void>((done) => (server = app.listen(0, "127.0.0.1", () => done())));
  inside = `http://127.0.0.1:${(server.address() as AddressInfo).port}/graphql`;
});

after(async () => {
  await alone.stop();
  await behind.stop();
  server.close();
});

interface Answered {
  data: Record<string, string>;
}

const all = ({ data }: Answered) => Object.values(data).map((text) => JSON.parse(text) as Seen);

async function asked(at: string, body: unknown, headers: Record<string, string>): Promise<Seen> {
  const answered = (await answer(at, json("POST", body, headers))) as unknown as Answered;
  return all(answered)[0] ?? assert.fail();
}

const query = "mutation Complete($id: String!) { completeTodo(id: $id) }";

test("many operations at once, each with its own context", async () => {
  await manyAtOnce(
    (id, headers) => asked(url, { query, variables: { id } }, { ...headers, "x-user": id }),
    (id) => ({ endpoint: "Complete", method: "POST", user_id: id }),
  );
});

test("operations of one batch have theirs, too", async () => {
  const batch = Array.from({ length: 50 }, (_, id) => ({ query, variables: { id: `${id}` } }));
  const answers = (await answer(url, json("POST", batch))) as unknown as Answered[];
  const seen = answers.flatMap(all);
  assert.deepEqual(
    seen.map(({ step }) => step),
    batch.map(({ variables }) => variables.id),
  );
});

test("an operation without a name is called by its fields", async () => {
  assert.deepEqual(await asked(url, { query: "{ todos others }" }, CALLER), {
    request_id: "req-1",
    trace_id: TRACE,
    endpoint: "todos, others",
    method: "POST",
  });
});

test("behind a middleware that set one, ids are that one's; the name of the earlier packages", async () => {
  await manyAtOnce(
    (id, headers) => asked(inside, { query, variables: { id } }, { ...headers, "x-user": id }),
    (id) => ({ endpoint: "Complete", method: "POST", user_id: id, variables: { id } }),
  );
});

test("called in place, it leaves its caller's context alone", async () => {
  await withContext({ user_id: 42, request_id: "outer" }, async () => {
    const { body } = await alone.executeOperation({ query: "{ todos }" }, { contextValue: {} });
    assert.equal(body.kind, "single");
    const text = body.kind === "single" ? body.singleResult.data?.["todos"] : undefined;
    assert.deepEqual(JSON.parse(text as string), {
      request_id: "outer",
      endpoint: "todos",
      user_id: 42,
    });
    assert.deepEqual(currentContext(), { user_id: 42, request_id: "outer" });
  });
});
