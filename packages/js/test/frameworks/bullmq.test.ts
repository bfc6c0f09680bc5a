import assert from "node:assert/strict";
import { hostname } from "node:os";
import { test } from "node:test";
import { mergeContext, outgoingHeaders, withContext } from "bemi";
import { install, withJobContext } from "bemi/bullmq";
import { FlowProducer, type Job, Queue, QueueEvents, Worker } from "bullmq";

import { CALLER, type Seen, work } from "./requests.js";

const address = process.env["REDIS_URL"];
const skip = address === undefined && "no REDIS_URL, as in tests/clients/test_javascript.py";

test("jobs have the context of who asked for them", { skip, timeout: 30_000 }, async (all) => {
  const connection = { url: address ?? "" };
  const queue = install(new Queue("todos", { connection }));
  const flows = install(new FlowProducer({ connection }));
  queue.setMaxListeners(0);
  const events = new QueueEvents("todos", { connection });
  await events.waitUntilReady();
  const process = withJobContext(
    async (job: Job<{ id: string }>): Promise<Seen> => {
      if (job.name === "fails" && job.attemptsMade === 0) throw new Error("once");
      if (job.name === "next") return done(await queue.add("other", job.data));
      if (job.name === "traced") return outgoingHeaders();
      return work(job.data.id);
    },
    { context: (job) => ({ queue: job.queueName }) },
  );
  // Made in a context that is none of its jobs'.
  const worker = withContext({ nobody: "theirs" }, () => {
    return new Worker("todos", process, { connection, concurrency: 20 });
  });
  all.after(() => {
    return Promise.all([worker.close(true), events.close(), flows.close(), queue.close()]);
  });
  const done = async (job: Job) => (await job.waitUntilFinished(events)) as Seen;
  const own = { worker: hostname(), queue: "todos" };

  await all.test("many at once, each with its own", async () => {
    const ids = Array.from({ length: 200 }, (_, id) => String(id));
    const asked = ids.map((id) =>
      withContext({ user_id: id }, async () => {
        mergeContext({ request_id: `req-${id}` });
        return done(await queue.add("complete", { id }));
      }),
    );
    assert.deepEqual(
      await Promise.all(asked),
      ids.map((id) => {
        return { user_id: id, request_id: `req-${id}`, job: "complete", ...own, step: id };
      }),
    );
  });

  await all.test("a bulk, a retry, and what a job asks for itself", async () => {
    const [one, fails, next] = await withContext({ user_id: 42 }, () =>
      queue.addBulk([
        { name: "one", data: { id: "1" } },
        { name: "fails", data: { id: "2" }, opts: { attempts: 2 } },
        { name: "next", data: { id: "3" } },
      ]),
    );
    assert.ok(one && fails && next);
    assert.deepEqual(await done(one), { user_id: 42, job: "one", ...own, step: "1" });
    assert.deepEqual(await done(fails), { user_id: 42, job: "fails", ...own, step: "2" });
    assert.deepEqual(await done(next), { user_id: 42, job: "other", ...own, step: "3" });
  });

  await all.test("the jobs of a flow", async () => {
    const child = { name: "child", queueName: "todos", data: { id: "1" } };
    const { job, children } = await withContext({ user_id: 42 }, () =>
      flows.add({ name: "parent", queueName: "todos", data: { id: "2" }, children: [child] }),
    );
    assert.deepEqual(await done(job), { user_id: 42, job: "parent", ...own, step: "2" });
    const seen = await children?.[0]?.job.waitUntilFinished(events);
    assert.deepEqual(seen, { user_id: 42, job: "child", ...own, step: "1" });
  });

  await all.test("without a context there is the job's own, and options stay", async () => {
    const job = await queue.add("plain", { id: "1" }, { attempts: 3, removeOnComplete: false });
    assert.deepEqual(await done(job), { job: "plain", ...own, step: "1" });
    const stored = await queue.getJob(job.id ?? "");
    assert.deepEqual([stored?.opts.attempts, "bemi-context" in (stored?.opts ?? {})], [3, false]);
  });

  await all.test("the trace goes on", async () => {
    const trace_id = CALLER.traceparent.split("-")[1];
    const job = await withContext({ trace_id }, () => queue.add("traced", {}));
    assert.match(String((await done(job))["traceparent"]), new RegExp(`^00-${trace_id}-`));
  });
});

test("what it is not for is refused", () => {
  assert.throws(() => install({} as Queue), /takes a Queue or a FlowProducer/);
  assert.throws(() => withJobContext("file.js" as never), /files have theirs inside/);
});
