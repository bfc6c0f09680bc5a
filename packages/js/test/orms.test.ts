// What the parts for ORMs refuse, and that their types are those of the ORMs.

import assert from "node:assert/strict";
import { test } from "node:test";

import { EntitySchema, MikroORM } from "@mikro-orm/postgresql";
import { PrismaPg } from "@prisma/adapter-pg";
import * as mikroOrm from "bemi/mikro-orm";
import { bemiMiddleware, withBemi } from "bemi/prisma";
import { Change, ChangeSchema, install, setContext } from "bemi/typeorm";
import type { Request, RequestHandler } from "express";
import { DataSource, type FindManyOptions } from "typeorm";

const misspelt = { redacted: true } as object;
const address = { host: "127.0.0.1", port: 1 };

test("TypeORM: of another database, or with an option that there is not", () => {
  const entities = [ChangeSchema];
  const source = new DataSource({ type: "postgres", ...address, entities });
  const other = new DataSource({ type: "cockroachdb", timeTravelQueries: false, ...address });
  assert.throws(() => install(other), /not of cockroachdb/);
  assert.throws(() => install(source, misspelt), /no option redacted/);
  assert.equal(install(install(source)), source);
  const middleware: RequestHandler = setContext(source, (request: Request) => ({
    endpoint: request.url,
  }));
  assert.equal(typeof middleware, "function");
});

test("TypeORM: conditions and orders are what it takes", () => {
  const options: FindManyOptions<Change> = {
    where: [
      { table: "todo", ...Change.updated(), ...Change.context({ user_id: 42 }) },
      { ...Change.fieldChanged("done"), ...Change.afterNot({ done: true }) },
    ],
    order: Change.desc(),
  };
  assert.deepEqual(Object.keys(options), ["where", "order"]);
});

test("MikroORM: the option sql, and ones that there are not", async () => {
  const entities = [new EntitySchema(mikroOrm.Change)];
  const orm = new MikroORM({ ...address, dbName: "none", entities, ensureDatabase: false });
  await assert.rejects(mikroOrm.install(orm, { sql: true } as object), /option sql/);
  await assert.rejects(mikroOrm.install(orm, misspelt), /no option redacted/);
  assert.equal(await mikroOrm.install(await mikroOrm.install(orm)), orm);
  await orm.close();
});

test("Prisma: what is no client, and an adapter of another driver", () => {
  const client = { $extends: (extension: unknown) => extension };
  const adapter = new PrismaPg({ ...address });
  const neon = { adapterName: "@prisma/adapter-neon", connect: () => adapter.connect() };
  assert.throws(() => withBemi({} as typeof client, adapter), /takes a PrismaClient/);
  assert.throws(() => withBemi(client, neon), /a PrismaPg/);
  assert.throws(() => withBemi(client, adapter, misspelt), /no option redacted/);
  assert.notEqual(withBemi(client, adapter), client);
  const middleware: RequestHandler = bemiMiddleware((request: Request) => ({ a: request.url }));
  assert.equal(typeof middleware, "function");
});
