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
  type QueryClass,
  type Submittable,
  textOf,
} from "./internal/pg/library.js";
import {
  type Asked,
  type Finish,
  type Queries,
  queriesOf,
  Session,
  type Told,
  watch,
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

/** One client. */
class Installed {
  private readonly original: Client["query"];
  private readonly queries: Queries;
  private session: Session;
  private replaced = false;
  /** Calls that have to wait: what goes before, or behind, another one has its answer first. */
  private held: (() => Promise<void>)[] | undefined;

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
    this.session = new Session(this.client, sender);
    this.client.query = (...given) => this.query(given.map(bound));
  }

  emit(): Promise<void> {
    const { session, queries } = this;
    const context = settle(peek());
    return new Promise((resolve, reject) => {
      const told = (error?: unknown) => (error ? reject(error) : resolve());
      this.inOrder(async () => {
        if (session.unasked) await this.check();
        this.original(new queries.Now(session, context, told));
      });
    });
  }

  private query(given: unknown[]): unknown {
    const { session } = this;
    const [config] = given;
    const text = textOf(config, this.client);
    if (text === undefined) return this.original(...given); // which says what is wrong
    const statement = session.sender.statement(text);
    if (!statement.writes && statement.controls.length === 0 && !statement.roles) {
      if (isSubmittable(config)) watch(config, session);
      const go = () => this.original(...given);
      return this.held ? this.later(given, go) : go();
    }
    const asked = { statement, text, context: session.sender.capture(statement) };
    return isSubmittable(config) ? this.runOther(config, given, asked) : this.runOwn(given, asked);
  }

  /** A query that `pg` makes itself. */
  private runOwn(given: unknown[], asked: Asked): unknown {
    const { session, queries } = this;
    const go = (finish?: Finish) =>
      this.answer(new queries.Carrying(session, asked, finish, given));
    // In pipeline mode nothing is known when it would have to be.
    const alone = asked.statement.several && !this.client.pipeline;
    return this.held || session.unasked || alone ? this.later(given, go, asked, alone) : go();
  }

  /** One that others have made for `pg`. */
  private runOther(query: Submittable, given: unknown[], asked: Asked): unknown {
    let finish: Finish | undefined;
    watch(query, this.session, asked, () => finish);
    const go = (found?: Finish) => {
      finish = found;
      return this.original(...given);
    };
    return this.client.pipeline ? go() : this.later(given, go, asked, true);
  }

  /** Runs a query in its turn, and what has to go before and behind it. */
  private later(
    given: unknown[],
    go: (finish?: Finish) => unknown,
    asked?: Asked,
    alone = false,
  ): unknown {
    let settled: (answer: unknown) => void = () => undefined;
    const result = isSubmittable(given[0])
      ? given[0]
      : hasCallback(given)
        ? undefined
        : new Promise((resolve) => {
            settled = resolve;
          });
    this.inOrder(async () => {
      if (asked && this.session.unasked) await this.check(asked);
      const began = asked && alone && (await this.before(asked));
      if (!began) return settled(go());
      await new Promise<void>((ended) => {
        const finish: Finish = (told) => {
          const committed: Told = (error) => {
            told(error);
            ended();
          };
          this.original(new this.queries.Commit(committed));
        };
        settled(go(finish));
      });
    });
    return result;
  }

  private inOrder(job: () => Promise<void>): void {
    if (this.held) {
      this.held.push(job);
      return;
    }
    const held = (this.held = [job]);
    void (async () => {
      for (let next = held.shift(); next; next = held.shift()) await next();
      this.held = undefined;
    })();
  }

  private check(asked?: Asked): Promise<void> {
    const { Check } = this.queries;
    return new Promise((told) => void this.original(new Check(this.session, asked, told)));
  }

  private before(asked: Asked): Promise<boolean> {
    const { Before } = this.queries;
    return new Promise((told) => void this.original(new Before(this.session, asked, told)));
  }

  /** Runs a query, and answers as `client.query` itself does. */
  private answer(query: { callback?: Callback | undefined }): unknown {
    if (query.callback) {
      this.original(query);
      return undefined;
    }
    const answer = new Promise((resolve, reject) => {
      query.callback = (error, result) => (error ? reject(error) : resolve(result));
    });
    this.original(query);
    return answer.catch((error: unknown) => {
      // As `pg` does: the trace leads to who has asked.
      if (error instanceof Error) Error.captureStackTrace(error);
      throw error;
    });
  }
}

function hasCallback(given: unknown[]): boolean {
  const [config] = given as [{ callback?: unknown } | string];
  return (
    given.some((each) => typeof each === "function") ||
    (typeof config === "object" && typeof config.callback === "function")
  );
}

/** A callback is called by the socket, which is in nobody's context. */
function bound(given: unknown): unknown {
  return typeof given === "function" ? bind(given as (...values: unknown[]) => unknown) : given;
}
