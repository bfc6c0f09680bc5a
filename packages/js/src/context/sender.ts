/**
 * Decides when the context of a connection's transaction is to be sent, and knows what was.
 *
 * One for each connection. It does no I/O: an integration asks `due` before each statement, sends
 * what it is told to, and says how things went. Sent once per transaction, before its first write;
 * again when the context has changed since, or was lost with a savepoint. Mirrors
 * `bemi.context.sender` of the Python client.
 */
import { peek, settle, type Values } from "./current.js";
import { warnOnce } from "./notice.js";
import { classify, type Statement } from "./statements.js";
import { encode } from "./wire.js";

/** What a driver's own way of committing does, for `Sender.due`. */
export const COMMIT: Statement = classify("commit");

/**
 * Asked once per connection: a statement that fails would end the application's transaction. So it
 * reads no table, which a role might not; the function has an argument more from 17 on. One row of
 * `in_recovery` (boolean), `may_emit` (boolean), `function` (text), `is_logical` (boolean).
 */
export const CHECK =
  "select pg_catalog.pg_is_in_recovery() as in_recovery, " +
  "pg_catalog.has_function_privilege(p.found, 'execute') as may_emit, " +
  "p.found::text as function, " +
  "pg_catalog.current_setting('wal_level') = 'logical' as is_logical " +
  "from (select coalesce(pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message(" +
  "pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool)'), " +
  "pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message(" +
  "pg_catalog.bool, pg_catalog.text, pg_catalog.text)')) " +
  "as found) p";

/** The row that `CHECK` gives, in the order of its columns. */
export type Checked = readonly [
  inRecovery: boolean,
  mayEmit: boolean,
  emits: string,
  isLogical: boolean,
];

/** A content to be sent before a statement, and the context that it is of. */
export class Due {
  constructor(
    readonly content: string,
    readonly context: Values,
    /** In a transaction around the two. */
    readonly wrap = false,
    /** Only where the transaction has written something, which nobody saw. */
    readonly ifWritten = false,
  ) {}

  /** What sends it; the content is its one parameter, in the placeholder of the driver. */
  statement(placeholder = "$1"): string {
    const text = `cast(${placeholder} as pg_catalog.text)`;
    const send = `pg_catalog.pg_logical_emit_message(true, '_bemi', ${text})`;
    if (!this.ifWritten) return `select ${send}`;
    // An answer that says whether anything was written costs a round trip of its own.
    return (
      "select case when pg_catalog.pg_current_xact_id_if_assigned() is not null " +
      `then ${send} end`
    );
  }
}

/** How an integration sends contexts. */
export interface Options {
  /** Names of functions whose calls count as writes: in a SELECT that can't be seen. */
  functions?: Iterable<string>;
  /**
   * A transaction that seems to have read only is asked whether it wrote, when it is committed. By
   * default it is not, since that is a round trip of most transactions.
   */
  checkAtCommit?: boolean;
  /**
   * Each statement that writes has its text in its changes' context, as `SQL`, never with its
   * parameters. A message per statement then.
   */
  sql?: boolean;
  /** Members that look like secrets are sent as `***`. By default they are. */
  redact?: boolean;
}

const OPTIONS = ["functions", "checkAtCommit", "sql", "redact"];

// Stands for what was sent where that is not known: whatever is current has to be sent again.
const UNSURE = "";

/** What is known of a connection when a statement is about to run on it. */
export interface Situation {
  /** One is open; otherwise the statement begins one, unless `autocommit`. */
  inTransaction: boolean;
  autocommit: boolean;
  /** The context of who called, from `capture`. */
  context: Values;
  /** The statement's text, for the option `sql`. */
  text?: string;
}

/** What one connection has sent in its open transaction. */
export class Sender {
  /** Whether the role may send; undefined while that was not asked (see `CHECK`). */
  allowed: boolean | undefined;

  readonly #checkAtCommit: boolean;
  readonly #functions: ReadonlySet<string>;
  readonly #sql: boolean;
  readonly #redact: boolean;
  #sent: string | undefined;
  #context: Values | undefined;
  #savepoints: { name: string; sent: string | undefined }[] = [];
  #roleChanged = false;

  /** @throws TypeError for an option that there is not, and for what names no functions */
  constructor(options: Options = {}) {
    const unknown = Object.keys(options).filter((name) => !OPTIONS.includes(name));
    if (unknown.length) {
      throw new TypeError(`bemi has no option ${unknown[0]}; there are ${OPTIONS.join(", ")}`);
    }
    this.#checkAtCommit = options.checkAtCommit ?? false;
    this.#functions = functionNames(options.functions ?? []);
    this.#sql = options.sql ?? false;
    this.#redact = options.redact ?? true;
  }

  statement(text: string): Statement {
    return classify(text, this.#functions);
  }

  /**
   * The context of a call that runs a statement, for `due`. To be taken where the application
   * calls: later, a pool's or a queue's work may go on in somebody else's name.
   */
  capture(statement: Statement): Values {
    const context = peek();
    const counts = statement.writes || (this.#checkAtCommit && isCommit(statement));
    return counts && this.allowed !== false ? settle(context) : context;
  }

  /** What has to be sent before a statement, if anything. */
  due(statement: Statement, situation: Situation): Due | undefined {
    const { inTransaction, autocommit, context, text = "" } = situation;
    if (!inTransaction) this.ended();
    if (this.allowed === false) return undefined;
    if (isCommit(statement)) return inTransaction ? this.#dueAtCommit(context) : undefined;
    if (!statement.writes) return undefined;
    const wrap = autocommit && !inTransaction;
    if (wrap && !statement.wrappable) return undefined;
    if (context === this.#context && this.#sent && !this.#sql) return undefined;
    // As it is without a message.
    if (this.#sent === undefined && isEmpty(context) && !this.#sql) return undefined;
    const content = this.#encode(this.#sql ? { ...context, SQL: text } : context);
    if (content === this.#sent) {
      this.#context = context;
      return undefined;
    }
    return new Due(content, context, wrap);
  }

  #dueAtCommit(context: Values): Due | undefined {
    if (!this.#checkAtCommit || this.#sent || isEmpty(context)) return undefined;
    return new Due(this.#encode(context), context, false, true);
  }

  #encode(context: Values): string {
    return encode(context, { redact: this.#redact });
  }

  /** What `emit` sends: the present context, an empty one, too, so that another ends. */
  now(context: Values = peek()): Due {
    return new Due(this.#encode(context), context);
  }

  /** Take the row that `CHECK` gave; whether to send. A standby is asked again later. */
  checked(answer: Checked | undefined): boolean {
    const [inRecovery, mayEmit, emits, isLogical] = answer ?? [true, false, "", true];
    if (inRecovery) {
      warnOnce("the server is a standby: it takes no writes, and so no contexts");
      return false;
    }
    this.allowed = mayEmit && isLogical;
    if (!isLogical) {
      warnOnce(
        "the server's wal_level is not logical, so no change is captured, and no context" +
          " is sent; fix: set wal_level = logical and restart the server",
      );
    } else if (!mayEmit) {
      warnOnce(
        "the database role may not send contexts, so changes are captured without;" +
          ` fix: grant execute on function ${emits} to the role`,
      );
    }
    return this.allowed;
  }

  /** It went into the open transaction, which a wrapped one has to itself. */
  sent(due: Due): void {
    if (due.wrap) return;
    this.#sent = due.content;
    this.#context = due.context;
  }

  /** A statement succeeded: follow what it did to the transaction, and to the role. */
  ran(statement: Statement): void {
    this.#followRole(statement);
    for (const [control, name] of statement.controls) {
      if (control === "end" || control === "rollback") this.ended();
      else if (control === "savepoint") this.setSavepoint(name);
      else if (control === "release") this.released(name);
      else if (control === "rollback to") this.rolledBackTo(name);
      // BEGIN in an open transaction changes nothing; else `due` knew that there was none.
    }
  }

  /** A statement, or what was sent before it, raised an error, on the server or before. */
  failed(statement: Statement): void {
    this.#followRole(statement);
    if (statement.controls.some(([control]) => control === "end" || control === "rollback")) {
      this.ended();
    } else if (this.#sent !== undefined) {
      this.#sent = UNSURE;
      this.#context = undefined;
    }
  }

  /** The transaction was committed or rolled back, or there is none. */
  ended(): void {
    this.#sent = this.#context = undefined;
    this.#savepoints = [];
    // What was set for the transaction is as it was before.
    if (this.#roleChanged) this.allowed = undefined;
    this.#roleChanged = false;
  }

  #followRole(statement: Statement): void {
    if (!statement.roles) return;
    this.allowed = undefined;
    this.#roleChanged = true;
  }

  /** Whether it will have to be asked again when the transaction ends. */
  get roleChanged(): boolean {
    return this.#roleChanged;
  }

  /** How many savepoints are set. */
  get depth(): number {
    return this.#savepoints.length;
  }

  setSavepoint(name: string): void {
    this.#savepoints.push({ name, sent: this.#sent });
  }

  released(name: string): void {
    this.#leave(name);
  }

  /** What was sent since is lost. Of a savepoint that was not seen, that is not known. */
  rolledBackTo(name: string): void {
    this.#context = undefined;
    this.#sent = this.#leave(name);
    this.setSavepoint(name);
    if (this.#roleChanged) this.allowed = undefined;
  }

  /** Forget a savepoint and those behind it; what had been sent when it was set. */
  #leave(name: string): string | undefined {
    const at = this.#savepoints.findLastIndex((savepoint) => savepoint.name === name);
    return at < 0 ? UNSURE : this.#savepoints.splice(at)[0]?.sent;
  }
}

function isCommit(statement: Statement): boolean {
  return (
    statement === COMMIT ||
    (statement.controls.length === 1 &&
      statement.controls[0]?.[0] === "end" &&
      !statement.writes &&
      !statement.several &&
      !statement.roles)
  );
}

function isEmpty(context: Values): boolean {
  for (const _ in context) return false;
  return true;
}

// One set for all connections with the same names, so that they share what is known of statements.
const known = new Map<string, ReadonlySet<string>>();

function functionNames(functions: Iterable<string>): ReadonlySet<string> {
  const given: unknown = functions;
  const names = typeof given === "string" || !isIterable(given) ? undefined : [...given];
  if (names === undefined || !names.every((name) => typeof name === "string")) {
    throw new TypeError(
      `functions takes names, as in functions: ["add_one"], not ${JSON.stringify(given)}`,
    );
  }
  const sorted = [...new Set(names.map(functionName))].sort();
  const key = sorted.join(" ");
  const found = known.get(key) ?? new Set(sorted);
  known.set(key, found);
  return found;
}

function functionName(name: string): string {
  const bare =
    name
      .toLowerCase()
      .split(".")
      .at(-1)
      ?.replace(/^"+|"+$/g, "") ?? "";
  if (bare === "" || /[() ]/.test(bare)) {
    throw new TypeError(`functions takes names without parentheses, not ${JSON.stringify(name)}`);
  }
  return bare;
}

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}
