// What node-postgres has that no other library does, as one story: URL names the database, and
// what comes out is what was seen.

import { createRequire } from "node:module";
import { finished } from "node:stream/promises";

import { currentContext, withContext } from "bemi";
import { emit, install } from "bemi/pg";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";

const url = process.env.URL;
const insert = (task) => `insert into todo (task) values ('${task}')`;
const said = {};

async function opened(settings = {}) {
  const client = new pg.Client({ connectionString: url, ...settings });
  install(client);
  await client.connect();
  return client;
}

const failure = (promise) =>
  promise.then(
    () => "nothing",
    (error) => error.message,
  );

const stories = {
  async "a prepared statement that fails is prepared again"(client) {
    const query = { name: "a", text: "insert into late values ($1)", values: ["x"] };
    const first = await failure(client.query(query));
    await client.query("create table late (task text)");
    await client.query(query);
    const { rowCount } = await client.query({ name: "a", values: ["y"] });
    return [first, rowCount];
  },
  async "a constraint that is deferred fails the statement"(client) {
    const late = "insert into child (parent) values (4711)";
    const copied = () => {
      const copy = client.query(copyFrom("copy child (parent) from stdin"));
      copy.end("4711\n");
      return finished(copy);
    };
    return [
      await failure(client.query(late)),
      await failure(client.query(`${insert("lost")}; ${late}`)),
      await failure(copied()),
    ].map((message) => message.includes("foreign key"));
  },
  async "a stream of what was written, in its caller's context"(client) {
    const text = "insert into todo (task) select 'stream' from generate_series(1, 5) returning id";
    const seen = new Set();
    const stream = client.query(new QueryStream(text, [], { batchSize: 2 }));
    stream.on("data", () => seen.add(currentContext().user_id));
    await finished(stream);
    return [...seen];
  },
  async "a cursor that is closed early"(client) {
    const text = "insert into todo (task) values ('cursor'), ('cursor') returning task";
    const cursor = client.query(new Cursor(text));
    const rows = await cursor.read(1);
    await cursor.close();
    return rows.length;
  },
  async "several statements in one text"(client) {
    const results = await client.query(`${insert("several")}; ${insert("several")}; select 1`);
    return results.map(({ command, rowCount }) => `${command} ${rowCount}`);
  },
  async "a callback is called in its caller's context"(client) {
    const user = (run) => new Promise((resolve) => run(() => resolve(currentContext().user_id)));
    return [
      await user((told) => client.query(insert("callback"), told)),
      await user((told) => client.query("select 1", [], told)),
      await user((told) => client.query({ text: insert("callback"), values: [] }, told)),
    ];
  },
  async "statements that are not awaited"(client) {
    const texts = ["begin", insert("queued"), insert("queued"), "commit", insert("queued")];
    return (await Promise.all(texts.map((text) => client.query(text)))).map((each) => each.command);
  },
  async "a query of its own class, and one with events"(client) {
    const query = client.query(new pg.Query(insert("query")));
    await new Promise((ended) => query.on("end", ended));
    return query instanceof pg.Query;
  },
  async "what is no query is refused as ever"(client) {
    const refused = [];
    for (const wrong of [undefined, null]) {
      try {
        client.query(wrong);
      } catch (error) {
        refused.push(error.constructor.name);
      }
    }
    refused.push(await failure(client.query({})));
    refused.push(await failure(client.query(insert("x"), "no array")));
    return refused;
  },
  async "by hand, where nothing is installed"() {
    const client = new pg.Client(url);
    await client.connect();
    await client.query("begin");
    await emit(client);
    await client.query(insert("by hand"));
    await client.query("commit");
    await client.end();
  },
  async "in pipeline mode"() {
    if (!("pipeline" in pg.Client.prototype) && !new pg.Client({ pipeline: true }).pipeline) return;
    const client = await opened({ pipeline: true });
    const texts = [
      "begin",
      insert("lost"),
      "insert into todo (n) values (1 / 0)",
      insert("lost"),
      "rollback",
      insert("pipeline"),
      "select 1",
      insert("pipeline"),
    ];
    const done = await Promise.allSettled(texts.map((text) => client.query(text)));
    await client.end();
    return done.map((each) => each.value?.command ?? each.reason.message);
  },
};

const client = await opened();
for (const [name, story] of Object.entries(stories)) {
  said[name] = (await withContext({ user_id: name }, () => story(client))) ?? null;
}
await client.end();

// One copy of the package as CommonJS, and one as modules: they have one context.
const required = createRequire(import.meta.url)("bemi");
said["both kinds of modules"] = withContext({ a: 1 }, () => required.currentContext());
console.log(JSON.stringify(said));
