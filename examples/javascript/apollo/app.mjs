// A to-do list behind Apollo Server: who asked, and by which operation, is in each change.
//
//     node app.mjs tables
//     node app.mjs

import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { contextPlugin } from "bemi/apollo";
import { install } from "bemi/pg";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

const server = new ApolloServer({
  typeDefs: `
    type Query { todos: [String] }
    type Mutation { add(task: String!): Boolean, complete(id: ID!): Boolean }
  `,
  resolvers: {
    Query: {
      todos: async () => (await pool.query("select task from todo")).rows.map((row) => row.task),
    },
    Mutation: {
      add: async (_, { task }) => {
        const { rowCount } = await pool.query("insert into todo (task) values ($1)", [task]);
        return rowCount === 1;
      },
      complete: async (_, { id }) => {
        const { rowCount } = await pool.query("update todo set done = true where id = $1", [id]);
        return rowCount === 1;
      },
    },
  },
  plugins: [contextPlugin()],
});

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  const { url } = await startStandaloneServer(server, {
    listen: { port: 0, host: "127.0.0.1" },
    // Stands for what finds out who asks.
    context: async ({ req }) => ({ user: { id: req.headers["x-user"] } }),
  });
  const headers = { "content-type": "application/json", "x-user": "ada" };
  for (const query of ['mutation { add(task: "Buy milk") }', "mutation Done { complete(id: 1) }"]) {
    await fetch(url, { method: "POST", headers, body: JSON.stringify({ query }) });
  }
  await server.stop();
}
await pool.end();
