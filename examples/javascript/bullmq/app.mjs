// A to-do list that a worker of BullMQ writes: for whom, and in which job, is in each change.
//
//     node app.mjs tables
//     node app.mjs
//
// Needs the program redis-server, which it starts for itself.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { withContext } from "bemi";
import { install as installInQueue, withJobContext } from "bemi/bullmq";
import { install } from "bemi/pg";
import { Queue, QueueEvents, Worker } from "bullmq";
import pg from "pg";

const pool = install(new pg.Pool({ connectionString: process.env.DATABASE_URL }));

const jobs = {
  add: ({ task }) => pool.query("insert into todo (task) values ($1)", [task]),
  complete: ({ id }) => pool.query("update todo set done = true where id = $1", [id]),
};

async function takeRequests(connection) {
  const queue = installInQueue(new Queue("todos", { connection }));
  const events = new QueueEvents("todos", { connection });
  const process = withJobContext(async (job) => (await jobs[job.name](job.data)).rowCount);
  const worker = new Worker("todos", process, { connection, name: "worker-1" });
  await events.waitUntilReady();
  await withContext({ user_id: "ada", endpoint: "/todos", method: "POST" }, async () => {
    const job = await queue.add("add", { task: "Buy milk" });
    await job.waitUntilFinished(events);
  });
  await withContext({ user_id: "bob", endpoint: "/todos/:id", method: "PUT" }, async () => {
    const job = await queue.add("complete", { id: 1 });
    await job.waitUntilFinished(events);
  });
  await Promise.all([worker.close(), events.close(), queue.close()]);
}

/** On a socket in a folder of its own, so that no port is taken. */
async function withRedis(run) {
  const folder = mkdtempSync(join(tmpdir(), "bullmq-"));
  const path = join(folder, "redis.sock");
  const settings = ["--port", "0", "--unixsocket", path, "--save", ""];
  const server = spawn("redis-server", settings, { cwd: folder });
  try {
    for await (const line of createInterface({ input: server.stdout })) {
      if (line.toLowerCase().includes("ready to accept connections")) break;
    }
    await run({ path });
  } finally {
    server.kill();
    rmSync(folder, { recursive: true });
  }
}

if (process.argv[2] === "tables") {
  await pool.query("create table todo (id serial primary key, task text, done bool)");
} else {
  await withRedis(takeRequests);
}
await pool.end();
