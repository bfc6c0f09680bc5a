// What the libraries have alike.

import { withContext } from "bemi";

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
