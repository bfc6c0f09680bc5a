/**
 * The queries that take the place of an application's: each knows only when its turn has come what
 * has to be sent before it, since only then those before it have ended.
 */

import { bind, type Values } from "../../context/current.js";
import { warnOnce } from "../../context/notice.js";
import { CHECK, type Checked, type Due, type Sender } from "../../context/sender.js";
import type { Statement } from "../../context/statements.js";
import type { Client, Connection, Query, QueryClass, QueryConfig } from "./library.js";

/** A statement that may write, or that does something to the transaction. */
export interface Asked {
  readonly statement: Statement;
  readonly text: string;
  readonly context: Values;
  /** What ends the transaction around it, from when its turn has come until that has ended. */
  finish?: Finish | undefined;
  /** What has to be told after that. */
  finishing?: (() => void)[];
}

/** `pg` sends nothing for a query that returns an error instead. */
const SKIPPED = new Error("there is nothing to be sent");

/** What knows the state of a client's transaction, and what was sent in it. */
export class Session {
  private status: string | undefined;
  /** Statements under way that may change the role, and with it who may send. */
  private roles = 0;

  constructor(
    readonly client: Client,
    readonly sender: Sender,
  ) {
    this.status = client.getTransactionStatus?.() ?? undefined;
    client.connection.prependListener("readyForQuery", (message) => {
      this.status = message?.status;
    });
  }

  /** `undefined` in one that has failed. */
  get inTransaction(): boolean | undefined {
    return this.status === "E" ? undefined : this.status === "T";
  }

  /** What is to be sent before a statement whose turn has come; whether that may be is known. */
  due({ statement, text, context }: Asked): Due | undefined {
    if (this.client.pipeline) {
      // Statements are sent before those ahead of them have ended: each brings its own.
      const empty = Object.keys(context).length === 0;
      return statement.writes && !statement.several && statement.wrappable && !empty
        ? this.sender.now(context)
        : undefined;
    }
    const { inTransaction } = this;
    if (inTransaction === undefined) return undefined;
    return this.sender.due(statement, { inTransaction, autocommit: true, text, context });
  }

  /** Whether it may have to be asked whether the role may send, when a call's turn has come. */
  get unasked(): boolean {
    const { allowed, roleChanged } = this.sender;
    return allowed === undefined || roleChanged || this.roles > 0;
  }

  begins({ statement }: Asked): void {
    if (statement.roles) this.roles += 1;
  }

  ended({ statement }: Asked, failed: boolean): void {
    if (statement.roles) this.roles -= 1;
    if (failed) this.sender.failed(statement);
    else this.sender.ran(statement);
  }
}

/** The statement that sends a message, and its parameter. */
function message(due: Due): { text: string; values: [string] } {
  return { text: due.statement("$1"), values: [due.content] };
}

/** Classes of queries, each on top of the one that a client makes itself. */
export interface Queries {
  readonly Plain: new (given: readonly unknown[]) => Query;
  readonly Carrying: new (session: Session, asked: Asked, given: readonly unknown[]) => Carrier;
  readonly Check: new (session: Session, asked: Asked | undefined, told: Told) => Query;
  readonly Before: new (
    session: Session,
    asked: Asked,
    told: (began: boolean, error?: unknown) => void,
  ) => Query;
  readonly Commit: new (told: Told) => Query;
  readonly Now: new (session: Session, current: Values, told: Told) => Query;
}

/** A query that carries a message with it; `alone`: one that can't, so that it goes before. */
export interface Carrier extends Query {
  readonly alone: boolean;
}

// What the simple protocol takes and the extended one may not, or in other words: a parameter whose
// value is missing, and several statements, which are told from one by what a backslash is.
const PARAMETER = /\$\d/;
const ESCAPED = /\\/;
const PARTED = /;\s*[^\s;]/;

function simple(text: string): boolean {
  return PARAMETER.test(text) || (ESCAPED.test(text) && PARTED.test(text));
}

/** What `client.query` itself does with a call, when it is called and not later. */
function adopt(query: Query, [config]: readonly unknown[]): void {
  const { query_timeout } = config as QueryConfig;
  if (query_timeout) query.query_timeout = query_timeout;
  const { callback } = query;
  if (!callback) return;
  if (typeof callback !== "function") throw new TypeError("callback is not a function");
  query.callback = bind(callback);
}

export function queriesOf(Query: QueryClass): Queries {
  /** The application's query, when nothing goes with it. */
  class Plain extends Query {
    constructor(given: readonly unknown[]) {
      super(...(given as [unknown]));
      adopt(this, given);
    }
  }

  /**
   * The application's query, which carries the message with it where one is due: in one round trip,
   * by the extended protocol. There all before one Sync is one transaction where none is open.
   */
  class Carrying extends Plain implements Carrier {
    readonly alone: boolean;
    private due: Due | undefined;
    private told = false;
    /** While what arrives belongs to the message. */
    private hidden = false;
    declare private ownName: string | undefined;

    constructor(
      private readonly session: Session,
      private readonly asked: Asked,
      given: readonly unknown[],
    ) {
      super(given);
      this.alone =
        asked.statement.several ||
        (!session.client.pipeline && !super.requiresPreparation() && simple(asked.text));
      session.begins(asked);
    }

    // `pg` takes the message's ParseComplete for that of the statement.
    override get name(): string | undefined {
      return this.hidden ? undefined : this.ownName;
    }

    override set name(name: string | undefined) {
      this.ownName = name;
    }

    override submit(connection: Connection): Error | null | undefined {
      const { session, asked } = this;
      if (!this.alone && session.sender.allowed) this.due = session.due(asked);
      return super.submit(connection);
    }

    override requiresPreparation(): boolean {
      return this.due !== undefined || super.requiresPreparation();
    }

    override prepare(connection: Connection): void {
      if (this.due) {
        const sending = message(this.due);
        connection.parse(sending);
        connection.bind(sending);
        connection.execute({});
        // Values of other types come in binary form.
        if (!super.requiresPreparation()) this.binary = false;
      }
      super.prepare(connection);
      this.hidden = this.due !== undefined;
    }

    override handleDataRow(row: unknown): unknown {
      return this.hidden ? undefined : super.handleDataRow(row);
    }

    override handleCommandComplete(command: unknown, connection: Connection): unknown {
      if (!this.hidden) return super.handleCommandComplete(command, connection);
      this.hidden = false;
      if (this.due) this.session.sender.sent(this.due);
      return undefined;
    }

    override handleCopyInResponse(connection: Connection): unknown {
      const result = super.handleCopyInResponse(connection);
      // The server has passed over the one that came while it waited for rows.
      if (this.due) connection.sync();
      return result;
    }

    override handleError(error: unknown, connection: Connection): unknown {
      // The statement was not parsed: all up to the Sync was passed over. After a `query_timeout`
      // the answers are still to come.
      if (this.hidden && this.ownName) delete connection.submittedNamedStatements?.[this.ownName];
      return this.end(true, () => super.handleError(error, connection), connection);
    }

    override handleReadyForQuery(connection: Connection): unknown {
      return this.end(false, () => super.handleReadyForQuery(connection), connection);
    }

    private end(failed: boolean, tell: () => unknown, connection: Connection): unknown {
      const { session, asked, told } = this;
      const { finish } = asked;
      this.told = true;
      if (!told) session.ended(asked, failed);
      if (told || !finish) return tell();
      finish((error) => {
        if (error && !failed) super.handleError(error, connection);
        else tell();
      });
      return undefined;
    }
  }

  /** Asks whether the role may send, where a statement behind it will want to know. */
  class Check extends Query {
    constructor(
      private readonly session: Session,
      private readonly asked: Asked | undefined,
      told: Told,
    ) {
      super({ text: CHECK, rowMode: "array" }, (error: unknown, result: { rows: Checked[] }) => {
        if (!error) session.sender.checked(result.rows[0]);
        told(error);
      });
    }

    override submit(connection: Connection): Error | null | undefined {
      const { session, asked } = this;
      const unknown = session.sender.allowed === undefined;
      const wanted = unknown && (asked ? session.due(asked) : session.inTransaction);
      return wanted ? super.submit(connection) : SKIPPED;
    }
  }

  /**
   * A message by itself, before what is no query of `pg`'s own, or is several statements; with a
   * BEGIN, where no transaction is open.
   */
  class Before extends Query {
    private due: Due | undefined;

    constructor(
      private readonly session: Session,
      private readonly asked: Asked,
      told: (began: boolean, error?: unknown) => void,
    ) {
      super({ text: "" }, (error: unknown) => {
        const { due } = this;
        if (!error && due) session.sender.sent(due);
        told(due?.wrap ?? false, error === SKIPPED ? undefined : error);
      });
    }

    override submit(connection: Connection): Error | null | undefined {
      const { session, asked } = this;
      this.due = session.sender.allowed ? session.due(asked) : undefined;
      if (this.due === undefined) return SKIPPED;
      if (this.due.wrap) this.text = `begin; ${inDigits(this.due)}`;
      else Object.assign(this, message(this.due));
      return super.submit(connection);
    }
  }

  /** Behind a BEGIN. It comes after a failure, too, and rolls back what has failed. */
  class Commit extends Query {
    constructor(told: Told) {
      super({ text: "commit" }, told);
    }
  }

  /** What `emit` sends. */
  class Now extends Query {
    private due: Due | undefined;

    constructor(
      private readonly session: Session,
      private readonly current: Values,
      told: Told,
    ) {
      super({ text: "" }, (error: unknown) => {
        if (!error && this.due) session.sender.sent(this.due);
        told(error === SKIPPED ? undefined : error);
      });
    }

    override submit(connection: Connection): Error | null | undefined {
      const { session, current } = this;
      if (session.inTransaction === false) {
        warnOnce(
          "emit was called outside of a transaction, where no write can follow in the same one",
        );
      }
      if (!session.inTransaction || !session.sender.allowed) return SKIPPED;
      this.due = session.sender.now(current);
      Object.assign(this, message(this.due));
      return super.submit(connection);
    }
  }

  return { Plain, Carrying, Check, Before, Commit, Now };
}

export type Told = (error?: unknown) => void;

/** Ends the transaction around a statement; who has asked hears of the statement after that. */
export type Finish = (told: Told) => void;

/** Whether an error of a query says that there is no connection any more. */
export function isLost(error: unknown): boolean {
  if (!error || error === SKIPPED) return false;
  const { severity, code } = error as { severity?: string; code?: string };
  return severity === undefined || /^57P0[1-5]$/.test(code ?? "");
}

/** What goes together with BEGIN can have no parameters. Digits can't be anything but data. */
function inDigits(due: Due): string {
  const digits = Buffer.from(due.content, "ascii").toString("hex");
  return due.statement(`pg_catalog.convert_from(pg_catalog.decode('${digits}', 'hex'), 'UTF8')`);
}
