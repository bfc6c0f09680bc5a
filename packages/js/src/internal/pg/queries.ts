/**
 * The queries that take the place of an application's: each knows only when its turn has come what
 * has to be sent before it, since only then those before it have ended.
 */

import { bind, type Values } from "../../context/current.js";
import { warnOnce } from "../../context/notice.js";
import { CHECK, type Checked, type Due, type Sender } from "../../context/sender.js";
import type { Statement } from "../../context/statements.js";
import type { Client, Connection, Query, QueryClass, QueryConfig, Submittable } from "./library.js";

/** A statement that may write, or that does something to the transaction. */
export interface Asked {
  readonly statement: Statement;
  readonly text: string;
  readonly context: Values;
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

  /** Whether it has to be asked whether the role may send, when it may have to. */
  get unasked(): boolean {
    return this.sender.allowed === undefined || this.roles > 0;
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
  readonly Carrying: new (
    session: Session,
    asked: Asked,
    finish: Finish | undefined,
    given: readonly unknown[],
  ) => Query;
  readonly Check: new (session: Session, asked: Asked | undefined, told: () => void) => Query;
  readonly Before: new (session: Session, asked: Asked, told: (began: boolean) => void) => Query;
  readonly Commit: new (told: Told) => Query;
  readonly Now: new (session: Session, current: Values, told: Told) => Query;
}

export function queriesOf(Query: QueryClass): Queries {
  /**
   * The application's query, which carries the message with it where one is due: in one round trip,
   * by the extended protocol. There all before one Sync is one transaction where none is open.
   */
  class Carrying extends Query {
    private due: Due | undefined;
    private told = false;
    /** While what arrives belongs to the message. */
    private hidden = false;
    private declare ownName: string | undefined;

    constructor(
      private readonly session: Session,
      private readonly asked: Asked,
      private readonly finish: Finish | undefined,
      given: readonly unknown[],
    ) {
      super(...(given as [unknown]));
      session.begins(asked);
      const [config] = given as [QueryConfig];
      if (config.query_timeout) this.query_timeout = config.query_timeout;
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
      // One that is several statements can't carry anything: what is due came before it.
      if (!asked.statement.several && session.sender.allowed) this.due = session.due(asked);
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

    override handleError(error: unknown, connection: Connection): unknown {
      if (this.hidden) {
        this.hidden = false;
        // The statement was not parsed: all up to the Sync was passed over.
        if (this.ownName) delete connection.submittedNamedStatements?.[this.ownName];
      }
      return this.end(true, () => super.handleError(error, connection), connection);
    }

    override handleReadyForQuery(connection: Connection): unknown {
      return this.end(false, () => super.handleReadyForQuery(connection), connection);
    }

    private end(failed: boolean, tell: () => unknown, connection: Connection): unknown {
      const { session, asked, finish, told } = this;
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
      told: () => void,
    ) {
      super({ text: CHECK, rowMode: "array" }, (error: unknown, result: { rows: Checked[] }) => {
        // Where it fails, so will the statement, which says why.
        if (!error) session.sender.checked(result.rows[0]);
        told();
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
      told: (began: boolean) => void,
    ) {
      super({ text: "" }, (error: unknown) => {
        const { due } = this;
        if (!error && due) session.sender.sent(due);
        told(due?.wrap ?? false);
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

  return { Carrying, Check, Before, Commit, Now };
}

export type Told = (error?: unknown) => void;

/** Ends the transaction around a statement; who has asked hears of the statement after that. */
export type Finish = (told: Told) => void;

/** What goes together with BEGIN can have no parameters. Digits can't be anything but data. */
function inDigits(due: Due): string {
  const digits = Buffer.from(due.content, "ascii").toString("hex");
  return due.statement(`pg_catalog.convert_from(pg_catalog.decode('${digits}', 'hex'), 'UTF8')`);
}

/**
 * Watches what others have made for `pg`, and has it told of things in the context of who has
 * asked. `asked`: where it may write. `finish`: what ends the transaction around it, if there is
 * one, which is known when it runs.
 */
export function watch(
  query: Submittable,
  session: Session,
  asked?: Asked,
  finish: () => Finish | undefined = () => undefined,
): void {
  const handlers = query as unknown as Record<string, unknown>;
  const inScope = bind((handler: Handler, given: unknown[]) => handler.apply(query, given));
  for (const name of HANDLERS) {
    const handler = handlers[name];
    if (typeof handler !== "function") continue;
    handlers[name] = (...given: unknown[]) => inScope(handler as Handler, given);
  }
  if (!asked) return;
  session.begins(asked);
  const { handleError, handleReadyForQuery } = query;
  let told = false;
  query.handleError = (error, connection) => {
    if (!told) session.ended(asked, true);
    if (!told) finish()?.(() => undefined);
    told = true;
    return handleError.call(query, error, connection);
  };
  query.handleReadyForQuery = (connection) => {
    if (!told) session.ended(asked, false);
    const ready = () => handleReadyForQuery.call(query, connection);
    const end = told ? undefined : finish();
    told = true;
    if (!end) return ready();
    end((error) => (error ? handleError.call(query, error, connection) : ready()));
    return undefined;
  };
}

type Handler = (...given: unknown[]) => unknown;

const HANDLERS = [
  "handleRowDescription",
  "handleDataRow",
  "handlePortalSuspended",
  "handleCommandComplete",
  "handleEmptyQuery",
  "handleCopyInResponse",
  "handleCopyData",
  "handleError",
  "handleReadyForQuery",
] as const;
