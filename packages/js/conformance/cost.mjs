// What sending a context costs: medians of the same statements with and without, in turns of one
// run. URL names a database with the table todo.
//
//     URL=… node conformance/cost.mjs pg knex …

import { withContext } from "bemi";

const url = new URL(process.env.URL);
const address = {
  host: url.hostname,
  port: Number(url.port),
  user: decodeURIComponent(url.username),
  password: decodeURIComponent(url.password),
  dbname: url.pathname.slice(1),
};
const INSERT = ["insert into todo (task) values ({})", ["a"]];
const ROUNDS = 1500;

const kinds = {
  "a read": (session) => session.run("select 1", []),
  "a write in autocommit": (session) => session.run(...INSERT),
  "a transaction of one write": async (session) => {
    await session.enter();
    await session.run(...INSERT);
    await session.leave(false);
  },
};

const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

for (const name of process.argv.slice(2)) {
  const { Library } = await import(`./libraries/${name}.mjs`);
  const sessions = [];
  for (const plain of [true, false]) {
    const session = new Library();
    await session.open(address, true, plain, {});
    sessions.push({ session, plain, times: {} });
  }
  await withContext({ user_id: 42, endpoint: "/todo/:id", request_id: "req-1" }, async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [kind, run] of Object.entries(kinds)) {
        for (const { session, times } of round % 2 ? sessions : sessions.toReversed()) {
          const begun = performance.now();
          await run(session);
          (times[kind] ??= []).push(performance.now() - begun);
        }
      }
    }
  });
  for (const kind of Object.keys(kinds)) {
    const [without, with_] = sessions.map(({ times }) => median(times[kind].slice(100)));
    const micro = (value) => (value * 1000).toFixed(0).padStart(5);
    const more = `+${micro(with_ - without).trim()}`;
    console.log(
      `${name.padEnd(12)} ${kind.padEnd(28)} ${micro(without)} ${micro(with_)} µs ${more}`,
    );
  }
  for (const { session } of sessions) await session.close();
}
