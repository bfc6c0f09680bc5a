// What an application sees of node-postgres, as stories that are played on a client as it is and on
// one that is installed: URL names the database, and what comes out is what each of the two saw.

import { setTimeout as pause } from "node:timers/promises";

import { withContext } from "bemi";
import { install } from "bemi/pg";
import pg from "pg";
import { to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";

const url = process.env.URL;
const insert = "insert into todo (task) values ('as ever')";
const inserted = { name: "a", text: "insert into todo (task) values ($1) returning task" };

const thrown = [];
process.on("uncaughtException", (error) => thrown.push(error.message));

const seen = ({ command, rowCount, rows }) => ({ command, rowCount, rows });
const outcome = (promise) =>
  Promise.race([pause(5000, "hangs", { ref: false }), promise]).then(
    (result) =>
      Array.isArray(result) ? result.map(seen) : result?.command ? seen(result) : result,
    ({ code, message }) => `${code}: ${message}`,
  );
const outcomes = (...promises) => Promise.all(promises.map(outcome));
const closed = (stream) => new Promise((told) => stream.on("close", () => told("closed")));

/** Runs a story while somebody else has locked the table. */
async function locked(other, story) {
  await other.query("begin; lock table todo");
  return story().finally(() => other.query("rollback"));
}

const stories = {
  async "all is done, and only then the queue is empty"({ opened }) {
    const client = await opened();
    client.on("drain", () => client.end());
    return outcomes(
      client.query(insert),
      client.query(`${insert}; ${insert}`),
      client.query(insert),
    );
  },
  async "there is no server"({ opened }) {
    const client = await opened({ connectionString: undefined, host: "127.0.0.1", port: 1 }, false);
    const [written] = await Promise.all([outcome(client.query(insert)), outcome(client.connect())]);
    return written;
  },
  async "the connection is lost"({ opened }) {
    const [client, other] = [await opened(), await opened()];
    const written = outcomes(client.query(insert), client.query(`${insert}; select 1`));
    client.connection.stream.destroy();
    const slow = outcomes(other.query(`${insert}; select pg_sleep(60)`), other.query(insert));
    await pause(100);
    await (await opened()).query("select pg_terminate_backend($1)", [other.processID]);
    return [await written, await slow];
  },
  async "the client is ended"({ opened }) {
    const client = await opened();
    const written = outcome(client.query(insert));
    return [await outcome(client.end()), await written];
  },
  async "results in binary form"({ opened }) {
    const client = await opened({ binary: true });
    return outcome(client.query(`${insert} returning 1.5 as number, 1::int8 as integer`));
  },
  async "values that are altered after the call"({ opened }) {
    const client = await opened();
    const config = { ...inserted, name: undefined, values: ["first"] };
    const first = client.query(config);
    config.values = ["second"];
    return outcomes(first, client.query(config));
  },
  async "a prepared statement by its name, before it is prepared"({ opened }) {
    const client = await opened();
    const again = { name: "a", values: ["second"] };
    return outcomes(client.query({ ...inserted, values: ["first"] }), client.query(again));
  },
  async "a prepared statement that is given up before it is parsed"({ opened, other }) {
    const client = await opened();
    await client.query(insert);
    await client.query("set lock_timeout = 300");
    const query = { ...inserted, values: ["late"] };
    return [
      await locked(other, async () => {
        const given = await outcome(client.query({ ...query, query_timeout: 100 }));
        await client.query("select 1");
        return given;
      }),
      await outcome(client.query(query)),
    ];
  },
  async "calls that wait are given up in time"({ opened, other }) {
    const client = await opened();
    const given = await locked(other, () =>
      outcomes(
        client.query({ text: `${insert}; select 1`, query_timeout: 200 }),
        client.query({ text: insert, query_timeout: 100 }),
        client.query({ text: "select 2 as n", query_timeout: 100 }),
      ),
    );
    return [given, await outcome(client.query("select 3 as n"))];
  },
  async "COPY without a stream"({ opened }) {
    const client = await opened();
    return outcomes(client.query("copy todo (task) from stdin"), client.query("select 1 as n"));
  },
  async "a value is missing"({ opened }) {
    const client = await opened();
    return outcomes(client.query("insert into todo (task) values ($1)"), client.query(insert));
  },
  async "texts that are several statements where they don't seem so"({ opened }) {
    const client = await opened();
    await client.query("set standard_conforming_strings = off");
    return outcomes(
      client.query(`insert into todo (task) values ('\\''); insert into todo (task) values ('x')`),
      client.query(`${insert} -- and\r; ${insert}`),
    );
  },
  async "the client is ended as soon as all seems done"({ opened, other }) {
    const writing = "insert into todo (task) values ('at once'), ('at once') returning task";
    const cursor = await opened();
    const written = cursor.query(new Cursor(writing));
    await written.read(1);
    await written.close();
    await cursor.end();
    for (const query of [new QueryStream(writing), copyTo(`copy (${writing}) to stdout`)]) {
      const client = await opened();
      for await (const _ of client.query(query));
      await client.end();
    }
    const { rowCount } = await other.query("delete from todo where task = 'at once'");
    return rowCount;
  },
  async "a callback that is none, and one that throws"({ opened }) {
    const client = await opened();
    let refused;
    try {
      client.query(insert, [], "none");
    } catch (error) {
      refused = error.message;
    }
    client.query(`${insert}; select 1`, () => {
      throw new Error("from the callback");
    });
    return [refused, await outcome(client.query("select 1 as n")), thrown.splice(0)];
  },
  async "cursors that are closed at once"({ opened }) {
    const client = await opened();
    const never = client.query(new Cursor(`${insert} returning task`));
    const found = [await outcome(never.close()), await outcome(client.query("select 1 as n"))];
    const once = client.query(new Cursor(`${insert} returning task`));
    const read = outcome(once.read(1));
    found.push(await outcome(once.close()), await read);
    const stream = client.query(new QueryStream(`${insert} returning task`));
    stream.destroy();
    found.push(await outcome(closed(stream)), await outcome(client.query("select 2 as n")));
    return found;
  },
};

async function played(story, plain) {
  const clients = [];
  const opened = async (settings = {}, connects = true) => {
    const client = new pg.Client({ connectionString: url, ...settings });
    client.on("error", () => undefined);
    if (!plain) install(client);
    if (connects) await client.connect();
    clients.push(client);
    return client;
  };
  const other = new pg.Client(url);
  await other.connect();
  try {
    return await story({ opened, other });
  } finally {
    other.on("error", () => undefined);
    for (const client of [...clients, other]) client.connection.stream.destroy();
  }
}

const said = {};
for (const [name, story] of Object.entries(stories)) {
  const plain = await played(story, true);
  const installed = await withContext({ user_id: name }, () => played(story, false));
  said[name] = [plain, installed];
}
console.log(JSON.stringify(said));
process.exit(0);
