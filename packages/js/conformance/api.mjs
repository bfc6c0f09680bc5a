// Asks a server of the history, as an application would; prints what came of it.
import { Client, ExactNumber, ProblemError } from "bemi/api";

const { HISTORY_URL: url, TOKEN: token } = process.env;
const history = new Client({ url, token: async () => token });
const failing = async (asked) => {
  try {
    await asked();
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return [error.status, error.type, error.problem.title, error.retryAfter ?? null];
  }
};
const exact = (value) =>
  typeof value === "bigint"
    ? `bigint ${value}`
    : value instanceof ExactNumber
      ? `exact ${value}`
      : value;

async function ask() {
  const taken = async (list) => {
    const found = [];
    for await (const each of list) found.push(each);
    return found;
  };
  const page = await history.get("/changes", {
    query: { table: "big", limit: 2, operation: ["create"] },
  });
  const [newest] = page.changes;
  const all = await taken(
    history.all("/changes", { query: { oldest_first: true, limit: 2, context: ["user_id=ann"] } }),
  );
  const change = await history.get("/changes/{id}", { path: { id: newest.id } });
  const rows = await taken(
    history.lines("/table/at", { query: { table: "big", when: newest.id } }),
  );
  const plan = await history.post("/reverts/plan", {
    body: { table: "big", operation: ["create"] },
  });
  const made = await history.post("/tokens", { body: { name: "a/b ?", role: "viewer" } });
  const other = new Client({ url: `${url}/`, token: made.token });
  const stopped = new AbortController();
  stopped.abort();
  return {
    page: [page.changes.length, page.next !== null],
    all: all.map((each) => exact(each.after.id)),
    values: Object.values(change.after).map(exact),
    rows: rows.map((row) => exact(row.values.id)),
    transactions: (await taken(history.all("/transactions", { query: { limit: 1 } }))).length,
    plan: plan.rows.length,
    me: (await other.get("/me")).role,
    csv: (
      await (await history.request("get", "/export", { query: { format: "csv" } })).text()
    ).split("\n").length,
    revoked:
      (await history.delete("/tokens/{id}", { path: { id: made.id } })).tokens.find(
        (each) => each.id === made.id,
      ).revoked_at !== null,
    problems: [
      await failing(() =>
        history.get("/changes/{id}", { path: { id: "00000000-0000-0000-0000-000000000000" } }),
      ),
      await failing(() => history.get("/changes", { query: { unknown: 1 } })),
      await failing(() => other.get("/me")),
      await failing(() => history.request("get", "/nothing")),
      await failing(() => new Client({ url: `${url}/elsewhere` }).get("/me")),
    ],
    aborted: await history.get("/me", { signal: stopped.signal }).catch((error) => error.name),
  };
}

// Each answer breaks off behind its first change, and the last one is stopped.
async function* stream() {
  const resumed = [];
  const cut = async (...asked) => {
    resumed.push(new Headers(asked[1].headers).get("Last-Event-ID") !== null);
    const answer = await fetch(...asked);
    let changes = 0;
    const broken = new TransformStream({
      transform(bytes, controller) {
        controller.enqueue(bytes);
        changes += new TextDecoder().decode(bytes).split("event: change").length - 1;
        if (changes > 0) controller.error(new Error("broken off"));
      },
    });
    return new Response(answer.body.pipeThrough(broken), answer);
  };
  const stop = new AbortController();
  const listening = new Client({ url, token, fetch: cut });
  const query = { table: "big", start: "beginning" };
  let last;
  for await (const event of listening.stream({ query, signal: stop.signal })) {
    last = event.id;
    yield [event.type, exact(event.change.after.id)];
    if (event.change.after.name === "last") stop.abort();
  }
  yield ["resumed", [...new Set(resumed)]];
  for await (const event of history.stream({ query, after: last })) {
    yield [event.type, exact(event.change.after.id)];
    break;
  }
  yield ["refused", await failing(() => new Client({ url, token: "nobody's" }).stream().next())];
}

if (process.argv[2] === "ask") console.log(JSON.stringify(await ask()));
else for await (const each of stream()) console.log(JSON.stringify(each));
