// What the libraries have alike.

import { withContext } from "bemi";
import pg from "pg";

/** A pool that, as `pg` asks of applications, hears of connections that the server has ended. */
export function pooled(settings) {
  return new pg.Pool(settings).on("error", () => undefined);
}

/** A statement with `$1`, `$2`, … for its `{}`; a text of the rules has neither otherwise. */
export function numbered(statement, count) {
  let number = 0;
  return count ? statement.replaceAll("{}", () => `$${++number}`) : statement;
}

/** Requests at once, each with a user of its own whose name is what it writes. */
export async function inTurns(writes, requests, { read, alone, together }) {
  let left = writes;
  let number = 0;
  const request = async () => {
    while (left > 0) {
      const task = `user ${number++}`;
      const few = left >= 3 ? 3 : 1;
      left -= few;
      await withContext({ user_id: task }, async () => {
        await read();
        await alone(task);
        if (few > 1) await together([task, task]);
      });
    }
  };
  await Promise.all(Array.from({ length: requests }, request));
}

/** A block whose library has it as a function that is given a transaction: entered, then left. */
export class Block {
  static async entered(begin) {
    const block = new Block();
    await new Promise((entered, failed) => {
      block.ended = begin(
        (transaction) =>
          new Promise((resolve, reject) => {
            block.transaction = transaction;
            block.leave = { resolve, reject };
            entered();
          }),
      );
      block.ended.catch(failed);
    });
    return block;
  }

  async left(failed) {
    const lost = new Error("the application's own");
    if (failed) this.leave.reject(lost);
    else this.leave.resolve();
    await this.ended.catch((error) => {
      if (error !== lost) throw error;
    });
  }
}

/**
 * What a library of one database object does for the rules. Of it: `connect(address)` gives the
 * database, `install(options)` makes it send, `begin(parent, run)` is its own block, around a
 * function that is given what statements run on in it, and `query(on, statement, parameters)`
 * gives `{ rows, count }`.
 */
export class Database {
  blocks = [];

  async open(address, autocommit, plain, options) {
    this.autocommit = autocommit;
    this.blocks = [];
    this.database = await this.connect(address, 1);
    if (!plain) await this.install(options);
    this.address = address;
    this.options = options;
  }

  async close() {
    while (this.blocks.length) await this.leave(true).catch(() => undefined);
    if (this.database) await this.disconnect();
    this.database = undefined;
  }

  get on() {
    return this.blocks.at(-1)?.transaction ?? this.database;
  }

  async asked(statement, parameters) {
    if (!this.autocommit && this.blocks.length === 0) await this.enter();
    return this.query(this.on, statement, parameters);
  }

  async run(statement, parameters) {
    return (await this.asked(statement, parameters)).rows;
  }

  async count(statement, parameters) {
    return (await this.asked(statement, parameters)).count;
  }

  async many(statement, rows) {
    for (const row of rows) await this.asked(statement, row);
  }

  async commit() {
    if (this.blocks.length) await this.leave(false);
  }

  async rollback() {
    if (this.blocks.length) await this.leave(true);
  }

  async enter() {
    const parent = this.on;
    const nested = this.blocks.length > 0;
    this.blocks.push(await Block.entered((run) => this.begin(parent, run, nested)));
  }

  async leave(failed) {
    await this.blocks.pop().left(failed);
  }

  async concurrent(writes, requests) {
    await this.disconnect();
    this.database = await this.connect(this.address, 5);
    await this.install(this.options);
    const insert = (on, task) => this.query(on, "insert into todo (task) values ({})", [task]);
    await inTurns(writes, requests, {
      read: () => this.query(this.database, "select count(*) from todo", []),
      alone: (task) => insert(this.database, task),
      together: (tasks) =>
        this.begin(this.database, async (on) => {
          for (const task of tasks) await insert(on, task);
        }),
    });
  }
}

/** The rows of a result of `pg`'s, whose rows are objects, as lists. */
export function lists({ rows, fields }) {
  return (rows ?? []).map((row) => fields.map(({ name }) => row[name]));
}
