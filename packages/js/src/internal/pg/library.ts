/** What is used of `pg`. Its own types are not needed, so that an application needs them not. */

/** The connection of a client, to which queries write their messages. */
export interface Connection {
  parse(message: { text: string }): void;
  bind(message: { values: readonly unknown[] }): void;
  execute(message: object): void;
  sync(): void;
  prependListener(
    event: "readyForQuery",
    listener: (message?: { status?: string }) => void,
  ): unknown;
  readonly parsedStatements: Record<string, string | undefined>;
  /** Since 8.17. */
  readonly submittedNamedStatements?: Record<string, string | undefined>;
}

export type Callback = (error: unknown, result?: unknown) => void;

/** A statement as `client.query` takes it. */
export interface QueryConfig {
  readonly text?: string;
  readonly name?: string;
  readonly values?: readonly unknown[];
  readonly rowMode?: "array";
  readonly query_timeout?: number;
}

/** What `client.query` runs: its own queries, and those that others make, as cursors. */
export interface Submittable {
  callback?: Callback | undefined;
  query_timeout?: number | undefined;
  /** An error that is returned says that nothing was sent. */
  submit(connection: Connection): Error | null | undefined;
  handleError(error: unknown, connection: Connection): unknown;
  handleReadyForQuery(connection: Connection): unknown;
}

/** A query of `pg`'s own. */
export interface Query extends Submittable {
  text?: string | undefined;
  values?: readonly unknown[] | undefined;
  // An accessor, since a property could not become one.
  get name(): string | undefined;
  set name(name: string | undefined);
  binary?: boolean | undefined;
  requiresPreparation(): boolean;
  prepare(connection: Connection): void;
  handleDataRow(message: unknown): unknown;
  handleCommandComplete(message: unknown, connection: Connection): unknown;
  handleCopyInResponse(connection: Connection): unknown;
}

export type QueryClass = new (config: unknown, values?: unknown, callback?: unknown) => Query;

export interface Client {
  query(...given: unknown[]): unknown;
  connect(callback?: (...given: unknown[]) => void): unknown;
  readonly connectionParameters?: { readonly query_timeout?: number | false };
  readonly connection: Connection;
  readonly constructor: { readonly Query: QueryClass };
  readonly pipeline?: boolean;
  /** Since 8.17. */
  getTransactionStatus?(): string | null;
}

export interface Pool {
  on(event: "connect", listener: (client: object) => void): unknown;
  connect(callback?: (...given: unknown[]) => void): unknown;
  readonly totalCount: number;
  /** Its clients; not public. Of a pool that has none yet it is not needed. */
  readonly _clients?: readonly object[];
}

export function isPool(target: object): target is Pool {
  return "connect" in target && "totalCount" in target && "on" in target;
}

export function isClient(target: object): target is Client {
  const { Query } = target.constructor as Partial<Client["constructor"]>;
  return "query" in target && "connection" in target && typeof Query === "function";
}

export function isSubmittable(config: unknown): config is Submittable {
  return typeof (config as Submittable | null)?.submit === "function";
}

/**
 * The text that a call of `client.query` runs; undefined for what `pg` refuses. `named`: the texts
 * of its statements by their names, since one may be asked for again before it was prepared.
 */
export function textOf(
  config: unknown,
  { connection }: Client,
  named: Map<string, string>,
): string | undefined {
  if (typeof config === "string") return config;
  if (config === null || typeof config !== "object") return undefined;
  const { text, name, cursor } = config as QueryConfig & { cursor?: QueryConfig };
  if (typeof text === "string") {
    if (name && connection.parsedStatements[name] === undefined) named.set(name, text);
    return text;
  }
  if (typeof cursor?.text === "string") return cursor.text; // pg-query-stream
  return name === undefined ? undefined : (connection.parsedStatements[name] ?? named.get(name));
}
