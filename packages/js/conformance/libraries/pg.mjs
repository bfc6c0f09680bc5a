// node-postgres: one client, and for requests at once a pool.

import { pipeline } from "node:stream/promises";
import { install } from "bemi/pg";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";

import { inTurns, numbered, pooled } from "../library.mjs";

pg.types.setTypeParser(20, Number);

export class Library {
  constructor(settings = {}) {
    this.settings = settings;
    this.blocks = 0;
  }

  async open(address, autocommit, plain, options) {
    const { dbname: database, ...rest } = address;
    this.address = { ...rest, database, ...this.settings };
    this.options = options;
    this.client = new pg.Client(this.address);
    if (!plain) install(this.client, options);
    await this.client.connect();
    this.autocommit = autocommit;
    this.open_ = false;
    this.blocks = 0;
  }

  async close() {
    await this.client?.end();
    this.client = undefined;
  }

  async begin() {
    if (this.autocommit || this.open_ || this.blocks) return;
    await this.client.query("begin");
    this.open_ = true;
  }

  async query(statement, parameters) {
    await this.begin();
    const text = numbered(statement, parameters.length);
    return this.client.query({ text, values: parameters, rowMode: "array" });
  }

  async run(statement, parameters) {
    const result = await this.query(statement, parameters);
    return result.rows ?? [];
  }

  async count(statement, parameters) {
    return (await this.query(statement, parameters)).rowCount;
  }

  async many(statement, rows) {
    await this.begin();
    const text = numbered(statement, rows[0].length);
    // Not awaited one by one: they queue, as applications let them.
    await Promise.all(rows.map((row) => this.client.query({ name: "many", text, values: row })));
  }

  async copy(table, rows) {
    await this.begin();
    const lines = rows.map((row) => `${row.join("\t")}\n`);
    await pipeline(lines, this.client.query(copyFrom(`copy ${table} from stdin`)));
  }

  async commit() {
    if (!this.open_) return;
    this.open_ = false;
    await this.client.query("commit");
  }

  async rollback() {
    if (!this.open_) return;
    this.open_ = false;
    await this.client.query("rollback");
  }

  async enter() {
    const nested = this.open_ || this.blocks;
    await this.client.query(nested ? `savepoint block_${this.blocks}` : "begin");
    this.blocks += 1;
  }

  async leave(failed) {
    this.blocks -= 1;
    const nested = this.open_ || this.blocks;
    const name = `block_${this.blocks}`;
    if (!nested) await this.client.query(failed ? "rollback" : "commit");
    else if (failed) await this.client.query(`rollback to ${name}; release ${name}`);
    else await this.client.query(`release ${name}`);
  }

  async concurrent(writes, requests) {
    const pool = pooled({ ...this.address, max: 5 });
    install(pool, this.options);
    const insert = "insert into todo (task) values ($1)";
    const read = () => pool.query("select count(*) from todo");
    await inTurns(writes, requests, {
      read,
      alone: (task) => pool.query(insert, [task]),
      together: async (tasks) => {
        const client = await pool.connect();
        try {
          await client.query("begin");
          for (const task of tasks) await client.query(insert, [task]);
          await client.query("commit");
        } finally {
          client.release();
        }
      },
    });
    await pool.end();
  }
}
