/**
 * Sends the current context through node-postgres: before the first write of each transaction, by
 * itself (`install`), or when it is told to (`emit`).
 *
 * A message travels with its statement, in one round trip; in autocommit the two are one
 * transaction.
 */

import { bind, outside, peek, settle } from "./context/current.js";
import { type Options, Sender } from "./context/sender.js";
import {
  type Callback,
  type Client,
  isClient,
  isPool,
  isSubmittable,
  type Pool,
  type Query,
  type QueryClass,
  type Submittable,
  textOf,
} from "./internal/pg/library.js";
import { postpone, watch } from "./internal/pg/others.js";
import {
  type Asked,
  isLost,
  type Queries,
  queriesOf,
  Session,
  type Told,
} from "./internal/pg/queries.js";

export type { Options } from "./context/sender.js";

const INSTALLED = Symbol.for("bemi.pg");

/**
 * Makes a client, or all clients of a pool, send the context of their transactions.
 *
 * @param target - a `Pool` or a `Client` of `pg`, connected or not.
 * @param options - see {@link Options}.
 * @returns the target.
 * @throws TypeError for what is neither, and for an option that there is not.
 */
export function install<Target extends object>(target: Target, options: Options = {}): Target {
  const sender = new Sender(options); // of a pool: a misspelt option is told here
  if (isPool(target)) installPool(target, options);
  else if (isClient(target)) attached(target, sender, true);
  else if ("native" in target) throw new TypeError("bemi does not know pg.native: use pg itself");
  else throw new TypeError("install takes a Pool or a Client of pg");
  return target;
}

/**
 * Sends what is current into the client's open transaction, `{}` too, so that an earlier context
 * of the transaction ends. Sends nothing into a transaction that has failed, and warns where there
 * is none that it could belong to.
 *
 * @param client - a `Client` of `pg`, installed or not.
 */
export async function emit(client: object): Promise<void> {
  if (!isClient(client)) throw new TypeError("emit takes a Client of pg");
  await attached(client, new Sender({}), false).emit();
}

function installPool(pool: Pool, options: Options): void {
  if (INSTALLED in pool) return;
  Object.defineProperty(pool, INSTALLED, { value: true });
  for (const client of pool._clients ?? []) install(client, options);
  pool.on("connect", (client) => void install(client, options));
  // Who waits for a client is called by who gives one back, and a socket calls for ever in the
  // context in which it was opened: neither is who has asked.
  const connect = pool.connect.bind(pool);
  pool.connect = (callback) => {
    const called = callback && bind(callback);
    return outside(() => connect(called));
  };
}

function attached(client: Client, sender: Sender, byItself: boolean): Installed {
  const holder = client as Client & { [INSTALLED]?: Installed };
  let found = holder[INSTALLED];
  if (found === undefined) {
    found = new Installed(client, client.constructor.Query, sender);
    Object.defineProperty(client, INSTALLED, { value: found });
  }
  if (byItself) found.replace(sender);
  return found;
}

/** What runs in its turn, and says when the next one may, and whether the connection was lost. */
type Job = (ended: (lost?: unknown) => void, lost: unknown) => void;

/** As long as a timer can be. */
const NEVER = 2 ** 31 - 1;

/** One client. */
class Installed {
  private readonly original: Client["query"];
  private readonly queries: Queries;
  private readonly named = new Map<string, string>();
  private session: Session;
  private replaced = false;
  /** Calls that have to wait: what goes before, or behind, another one has its answer first. */
  private held: Job[] | undefined;

  constructor(
    private readonly client: Client,
    Query: QueryClass,
    sender: Sender,
  ) {
    this.original = client.query.bind(client);
    this.queries = queriesOf(Query);
    this.session = new Session(client, sender);
  }

  replace(sender: Sender): void {
    if (this.replaced) return;
    this.replaced = true;
    const { client } = this;
    this.session = new Session(client, sender);
    client.query = (...given) => this.query(given.map(bound));
    const connect = client.connect.bind(client);
    client.connect = (callback) => {
      const called = callback && bind(callback);
      return outside(() => connect(called));
    };
  }

  emit(): Promise<void> {
    const { session, queries } = this;
    const context = settle(peek());
    return new Promise((resolve, reject) => {
      const told = (error?: unknown) => (error ? reject(error) : resolve());
      this.inOrder((ended) => {
        this.check(undefined, (error) => {
          if (isLost(error)) told(error);
          else this.original(new queries.Now(session, context, told));
          ended(error);
        });
      });
    });
  }

  private query(given: unknown[]): unknown {
    const { client, session, queries } = this;
    const [config] = given;
    if (config === null || config === undefined) return this.original(...given); // says so
    const asked = this.asked(textOf(config, client, this.named));
    if (isSubmittable(config)) return this.runOther(config, given, asked);
    if (asked) {
      const query = new queries.Carrying(session, asked, given);
      // In pipeline mode nothing is known when it would have to be.
      const alone = query.alone && !client.pipeline;
      return this.answer(query, asked, alone, alone || session.unasked);
    }
    const { callback } = config as { callback?: unknown };
    if (!this.held && typeof callback !== "function") return this.original(...given);
    return this.answer(new queries.Plain(given));
  }

  /** Of a statement that needs to be looked after. */
  private asked(text: string | undefined): Asked | undefined {
    const { sender } = this.session;
    const statement = text === undefined ? undefined : sender.statement(text);
    if (!text || !statement) return undefined;
    if (!statement.writes && statement.controls.length === 0 && !statement.roles) return undefined;
    return { statement, text, context: sender.capture(statement) };
  }

  /** Runs a query of `pg`'s own, and answers as `client.query` itself does. */
  private answer(query: Query, asked?: Asked, alone = false, waits = false): unknown {
    const answer = query.callback
      ? undefined
      : new Promise((resolve, reject) => {
          query.callback = (error, result) => (error ? reject(error) : resolve(result));
        });
    if (this.held || waits) this.later(query, asked, alone);
    else this.original(query);
    return answer?.catch((error: unknown) => {
      // As `pg` does: the trace leads to who has asked.
      if (error instanceof Error) Error.captureStackTrace(error);
      throw error;
    });
  }

  /** Runs one that others have made for `pg`. */
  private runOther(query: Submittable, given: unknown[], asked: Asked | undefined): unknown {
    watch(query, this.session, asked);
    if (this.client.pipeline || !(this.held || asked)) return this.original(...given);
    const callback = given.slice(1).find((each) => typeof each === "function");
    if (callback && !query.callback) query.callback = callback as Callback;
    postpone(query);
    this.later(query, asked, true);
    return query;
  }

  /** Runs a query in its turn, and what has to go before and behind it. */
  private later(query: Submittable, asked: Asked | undefined, alone: boolean): void {
    const { client, original } = this;
    const timeout = query.query_timeout || client.connectionParameters?.query_timeout;
    const asks = performance.now();
    let over = false;
    const fail = (error: unknown) => {
      over = true;
      clearTimeout(timer);
      process.nextTick(() => query.handleError(error, client.connection));
    };
    // As `pg` does for those that wait in its own queue.
    const expire = () => {
      const error = new Error("Query read timeout");
      fail(error);
      const { callback } = query;
      query.callback = () => undefined;
      callback?.(error);
    };
    const timer = timeout ? setTimeout(expire, timeout) : undefined;
    const run = () => {
      if (over) return;
      clearTimeout(timer);
      if (timeout) query.query_timeout = Math.max(1, timeout - (performance.now() - asks));
      original(query);
    };

    this.inOrder((ended, lost) => {
      const failed = (error: unknown) => {
        if (!over) fail(error);
        ended(error);
      };
      if (lost) return failed(lost);
      this.check(asked, (unanswered) => {
        // Any other failure is the statement's, too, which says why.
        if (isLost(unanswered)) return failed(unanswered);
        this.before(alone ? asked : undefined, (began, refused) => {
          if (refused && !began) return failed(refused);
          if (refused) return this.commit(() => failed(refused));
          if (began && over) return this.commit(ended);
          if (began && asked) {
            asked.finish = (told) => {
              this.commit((error) => {
                asked.finish = undefined;
                try {
                  told(error);
                } finally {
                  ended(error);
                }
                for (const tell of asked.finishing ?? []) tell();
              });
            };
          }
          run();
          if (!began) ended();
        });
      });
    });
  }

  private inOrder(job: Job): void {
    if (this.held) {
      this.held.push(job);
      return;
    }
    this.held = [job];
    this.goOn(undefined);
  }

  /** At once, so that the queue of `pg` is not empty in between: that would be told as `drain`. */
  private goOn(lost: unknown): void {
    const { held = [] } = this;
    for (let job = held.shift(); job; job = held.shift()) {
      const turn = { ended: false, left: false };
      job((error) => {
        if (isLost(error)) lost = error;
        turn.ended = true;
        if (turn.left) this.goOn(lost);
      }, lost);
      turn.left = true;
      if (!turn.ended) return;
    }
    this.held = undefined;
  }

  private check(asked: Asked | undefined, told: Told): void {
    const { session, queries } = this;
    if (session.unasked) this.ask(new queries.Check(session, asked, told));
    else told();
  }

  private before(asked: Asked | undefined, told: (began: boolean, error?: unknown) => void): void {
    const { session, queries } = this;
    if (asked) this.ask(new queries.Before(session, asked, told));
    else told(false);
  }

  private commit(told: Told): void {
    this.ask(new this.queries.Commit(told));
  }

  /** Something of our own, which is not to be given up in the middle of it. */
  private ask(query: Query): void {
    if (this.client.connectionParameters?.query_timeout) query.query_timeout = NEVER;
    this.original(query);
  }
}

/** A callback is called by the socket, which is in nobody's context. */
function bound(given: unknown): unknown {
  return typeof given === "function" ? bind(given as (...values: unknown[]) => unknown) : given;
}
