import assert from "node:assert/strict";

import { parse } from "#bemi/context/json.js";
import { type Options, Sender } from "#bemi/context/sender.js";

/** A connection of which only the sender is there: what it would send, in order. */
export class Session {
  readonly sender: Sender;
  readonly sent: unknown[] = [];
  readonly #autocommit: boolean;
  #open = false;

  constructor({ autocommit = false, ...options }: Options & { autocommit?: boolean } = {}) {
    this.sender = new Sender(options);
    this.sender.allowed = true;
    this.#autocommit = autocommit;
  }

  /** What was sent before each of these statements; undefined: nothing. */
  run(...texts: string[]): unknown[] {
    return this.#all(texts, false);
  }

  /** The same of statements that fail. */
  fail(...texts: string[]): unknown[] {
    return this.#all(texts, true);
  }

  #all(texts: string[], fails: boolean): unknown[] {
    const before = this.sent.length;
    for (const text of texts) {
      const statement = this.sender.statement(text);
      const context = this.sender.capture(statement);
      const situation = { inTransaction: this.#open, autocommit: this.#autocommit, context, text };
      const due = this.sender.due(statement, situation);
      this.sent.push(due && parse(due.content));
      if (due !== undefined) {
        assert.equal(due.wrap, this.#autocommit && !this.#open);
        this.sender.sent(due);
      }
      if (fails) this.sender.failed(statement);
      else this.sender.ran(statement);
      const controls = statement.controls.map(([control]) => control);
      const begun = this.#open || !this.#autocommit || controls.includes("begin");
      this.#open = begun && !controls.includes("end") && !controls.includes("rollback");
    }
    return this.sent.slice(before);
  }
}
