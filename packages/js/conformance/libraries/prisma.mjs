// Prisma: one client on a pool of one connection; for requests at once a pool of five. Another version
// of it is in BEMI_TEST_PRISMA.
//
// Its transactions are functions: one that begins with its first statement waits for the commit.

import { createRequire } from "node:module";
import { withContext } from "bemi";
import { bemiMiddleware, withBemi, withBemiExtension } from "bemi/prisma";

import { Block, inTurns, numbered } from "../library.mjs";

const folder = process.env.BEMI_TEST_PRISMA ?? new URL("../../", import.meta.url).pathname;
const required = createRequire(`${folder}/`);
const { PrismaPg } = required("@prisma/adapter-pg");
// What `prisma generate` makes of ../prisma/schema.prisma.
const { PrismaClient } = required("./node_modules/.bemi-prisma");

// Anew for each: Prisma notes in it of which one another is nested.
const long = () => ({ maxWait: 60_000, timeout: 600_000 });

function adapter({ dbname: database, ...rest }, max) {
  return new PrismaPg({ ...rest, database, max });
}

function plain(value) {
  return typeof value === "bigint" ? Number(value) : value;
}

export class Library {
  async open(address, autocommit, isPlain, options) {
    this.address = address;
    this.options = options;
    const one = adapter(address, 1);
    const client = new PrismaClient({ adapter: one, errorFormat: "minimal" });
    this.client = isPlain ? client : withBemi(client, one, options);
    this.autocommit = autocommit;
    this.began = undefined;
    this.blocks = [];
  }

  async close() {
    // It waits for a connection that is in use.
    if (this.client) await this.rollback();
    await this.client?.$disconnect();
    this.client = undefined;
  }

  get current() {
    return this.blocks.at(-1)?.transaction ?? this.began?.transaction ?? this.client;
  }

  async begin() {
    if (this.autocommit || this.began || this.blocks.length) return;
    this.began = await Block.entered((within) => this.client.$transaction(within, long()));
  }

  async run(statement, parameters) {
    await this.begin();
    const text = numbered(statement, parameters.length);
    // What a function gives that gives nothing is no type that Prisma reads.
    if (/^select \w+\(\)$/.test(text)) return this.count(statement, parameters).then(() => []);
    const rows = await this.current.$queryRawUnsafe(text, ...parameters);
    return rows.map((row) => Object.values(row).map(plain));
  }

  async count(statement, parameters) {
    await this.begin();
    return this.current.$executeRawUnsafe(numbered(statement, parameters.length), ...parameters);
  }

  async many(statement, rows) {
    for (const row of rows) await this.count(statement, row);
  }

  async end(failed) {
    const { began } = this;
    this.began = undefined;
    await began?.left(failed);
  }

  commit() {
    return this.end(false);
  }

  rollback() {
    return this.end(true);
  }

  async enter() {
    const { current } = this;
    this.blocks.push(await Block.entered((within) => current.$transaction(within, long())));
  }

  async leave(failed) {
    await this.blocks.pop().left(failed);
  }

  async concurrent(writes, requests) {
    const five = adapter(this.address, 5);
    const client = withBemi(new PrismaClient({ adapter: five }), five, this.options);
    let number = 0;
    await inTurns(writes, requests, {
      // Prisma makes one statement of those that are asked for at once.
      read: () => client.todo.findUnique({ where: { id: 1 } }),
      alone: (task) => client.todo.create({ data: { task } }),
      together: (tasks) => {
        const create = (by) => tasks.map((task) => by.todo.create({ data: { task } }));
        if (number++ % 2) return client.$transaction(create(client), long());
        return client.$transaction((by) => Promise.all(create(by)), long());
      },
    });
    await client.$disconnect();
  }

  /** Each step in a context of its own, which has its name. */
  async models() {
    const { client } = this;
    const { todo, note } = client;
    const steps = {
      create: () => todo.create({ data: { task: "a" } }),
      "create with relations": () =>
        todo.create({ data: { task: "b", notes: { create: [{ text: "1" }, { text: "2" }] } } }),
      "create many": () => todo.createMany({ data: [{ task: "c" }, { task: "d" }] }),
      "create many and return": () =>
        todo.createManyAndReturn({ data: [{ task: "e" }, { task: "f" }] }),
      "an upsert that updates": () =>
        note.upsert({ where: { text: "1" }, create: { text: "1" }, update: { text: "one" } }),
      "an upsert that creates": () =>
        note.upsert({ where: { text: "3" }, create: { text: "3" }, update: { text: "three" } }),
      read: () => todo.findMany({ include: { notes: true } }),
      update: () => todo.update({ where: { id: 1 }, data: { n: 1 } }),
      "update of relations": () =>
        todo.update({
          where: { id: 2 },
          data: { n: 2, notes: { delete: { text: "2" }, create: { text: "4" } } },
        }),
      "update many": () => todo.updateMany({ where: { task: "c" }, data: { n: { increment: 1 } } }),
      "execute raw": () => client.$executeRaw`update todo set n = ${6} where task = ${"d"}`,
      "query raw": () => client.$queryRaw`update todo set n = 7 where task = 'd' returning id`,
      "batch transaction": () =>
        client.$transaction([
          todo.create({ data: { task: "g" } }),
          client.$executeRaw`update todo set n = 8 where task = 'g'`,
          todo.findMany(),
          todo.deleteMany({ where: { task: "g" } }),
        ]),
      "interactive transaction": () =>
        client.$transaction(async (by) => {
          await by.todo.create({ data: { task: "h" } });
          // Prisma 6 has none inside of another one.
          if (!by.$transaction) return by.todo.create({ data: { task: "i" } });
          await by
            .$transaction(async (nested) => {
              await nested.todo.create({ data: { task: "lost" } });
              throw new Error("the application's own");
            })
            .catch(() => undefined);
          return by.$transaction((nested) => nested.todo.create({ data: { task: "i" } }));
        }),
      delete: () => todo.delete({ where: { id: 1 } }),
      "several at once": () =>
        Promise.all(["j", "k"].map((task) => todo.create({ data: { task } }))),
      "a request": () => this.request("a request"),
    };
    for (const [step, run] of Object.entries(steps)) await withContext({ step }, run);
  }

  /** By the names of the earlier package. */
  async request(step) {
    const one = adapter(this.address, 1);
    const client = withBemiExtension(new PrismaClient({ adapter: one }), one, this.options);
    const middleware = bemiMiddleware((request) => ({ step: request.step }));
    for (const task of ["m", "n"]) {
      await new Promise((resolve, reject) => {
        const write = () => client.todo.create({ data: { task } });
        middleware({ step }, {}, () => write().then(resolve, reject));
      });
      await client.$disconnect();
    }
  }

  /** What several requests ask for in the same turn of the loop. */
  async turns() {
    const five = adapter(this.address, 5);
    const client = withBemi(new PrismaClient({ adapter: five }), five, this.options);
    const create = (by, task) => by.todo.create({ data: { task } });
    for (let time = 0; time < 5; time += 1) {
      const users = ["ann", "bob", "cho"].map((user) => `${user} ${time}`);
      const each = (does) =>
        Promise.all(users.map((user) => withContext({ user_id: user }, () => does(user))));
      await each((user) => client.$transaction([create(client, user), create(client, user)]));
      let entered = 0;
      const all = new Promise((resolve) => {
        this.entered = () => ++entered === users.length && resolve();
      });
      await each((user) =>
        client.$transaction(async (by) => {
          this.entered();
          await all;
          await create(by, user);
          await Promise.all([create(by, user), create(by, user)]);
        }),
      );
      await each((user) =>
        user.startsWith("ann")
          ? client.todo.findUnique({ where: { id: 1 } })
          : client.$transaction([create(client, user)]),
      );
    }
    await client.$disconnect();
  }

  /** What the history says to each of some questions: the keys of the changes. */
  async reading() {
    const keys = async (where) => {
      const orderBy = [{ committedAt: "asc" }, { commitPosition: "asc" }, { ordinal: "asc" }];
      const of = { where: { table: "todo", ...where }, orderBy };
      const found = await this.client.change.findMany(of);
      return found.map((change) => change.primaryKey);
    };
    return {
      created: await keys({ operation: "CREATE" }),
      updated: await keys({ operation: "UPDATE" }),
      deleted: await keys({ operation: "DELETE" }),
      before: await keys({ before: { path: ["n"], equals: 1 } }),
      after: await keys({ after: { path: ["task"], equals: "b" } }),
      context: await keys({ context: { path: ["user_id"], equals: "ann" } }),
    };
  }
}
