// A to-do list on Prisma: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { PrismaPg } from "@prisma/adapter-pg";
import { withContext } from "bemi";
import { withBemi } from "bemi/prisma";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

// An application has its schema and its client beside its sources; those of an example have to be
// where Prisma finds its own packages.
const folder = new URL("../../../packages/js/node_modules/.bemi-example/", import.meta.url);

/** What `npx prisma generate` does, without the program for migrations, which it would download. */
function generate() {
  const schema = new URL("schema.prisma", folder);
  mkdirSync(folder, { recursive: true });
  copyFileSync(new URL("schema.prisma", import.meta.url), schema);
  const prisma = fileURLToPath(import.meta.resolve("prisma/build/index.js"));
  const { status, stderr } = spawnSync(
    process.execPath,
    [prisma, "generate", `--schema=${fileURLToPath(schema)}`, "--no-hints"],
    { env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath } },
  );
  if (status !== 0) throw new Error(`prisma generate: ${stderr}`);
}

const tables = process.argv[2] === "tables";
if (tables) generate();
const { PrismaClient } = createRequire(folder)("./client");
const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = withBemi(new PrismaClient({ adapter }), adapter);

async function add(task) {
  await prisma.todo.create({ data: { task } });
}

async function completeAll() {
  await prisma.$transaction(async (transaction) => {
    await transaction.todo.updateMany({ data: { done: true } });
    await transaction.note.create({ data: { text: "all is done" } });
  });
}

if (tables) {
  await prisma.$executeRaw`
    create table todo (id bigserial primary key, task text not null, done boolean default false)`;
  await prisma.$executeRaw`create table note (id bigserial primary key, text text not null)`;
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await prisma.$disconnect();
