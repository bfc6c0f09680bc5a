/**
 * Sends the current context through MikroORM: before the first write of each transaction, by
 * itself. And reads the history, as an entity.
 *
 * It knows where MikroORM has its pool; what is sent, and when, is a matter of `bemi/pg`. Nothing
 * of MikroORM is imported: it has ESM only.
 */

import { type Options as AllOptions, Sender } from "./context/sender.js";
import { contextOf, type Middleware } from "./internal/middleware.js";
import { install as installPool } from "./pg.js";

export type { ChangeColumns, Image } from "./internal/change.js";
export type { Middleware } from "./internal/middleware.js";

/** The option `sql` is left out: MikroORM's statements have their values in their text. */
export type Options = Omit<AllOptions, "sql">;

/** What is used of MikroORM: the connection that writes. */
export interface Orm {
  readonly driver: { getConnection(type?: "write"): object };
}

interface Connection {
  connect(options?: object): Promise<void>;
  /** The pool of `pg`. */
  getNativeClient(): Promise<object>;
}

const INSTALLED = Symbol.for("bemi.mikro-orm");

/**
 * Makes all connections of an ORM that write send the context of their transactions.
 *
 * @param orm - what `MikroORM.init` gave, connected or not.
 * @param options - see {@link Options}.
 * @returns the ORM, once its pool is there.
 * @throws TypeError for an ORM of another database, and for an option that there is not
 */
export async function install<Given extends Orm>(
  orm: Given,
  options: Options = {},
): Promise<Given> {
  if ("sql" in options) {
    throw new TypeError(
      "MikroORM's statements have the values of their parameters in their text, so that bemi " +
        "does not have the option sql for it",
    );
  }
  new Sender(options); // a misspelt option is told here
  const connection = orm.driver.getConnection("write") as Connection;
  if (INSTALLED in connection) return orm;
  installPool(await connection.getNativeClient(), options);
  Object.defineProperty(connection, INSTALLED, { value: true });
  // Its pool is made anew after it was closed.
  const connect = connection.connect.bind(connection);
  connection.connect = async (given) => {
    await connect(given);
    installPool(await connection.getNativeClient(), options);
  };
  return orm;
}

/**
 * A middleware of Express that says what is the context of each request, under the name that Bemi's
 * earlier package has for it. What sends it is `install`.
 *
 * @deprecated use `contextMiddleware` of `bemi/express`
 */
export function setContext<Request extends object>(
  context: (request: Request) => object,
): Middleware<Request> {
  return contextOf(context);
}

const column = (type: string, fieldName: string) => ({ type, fieldName });
const nullable = (type: string, fieldName: string) => ({ type, fieldName, nullable: true });

/**
 * The view `bemi.changes`, for `new EntitySchema(Change)` among the entities of an ORM, which never
 * writes to it. Its schema generator would make a table of it: that is told `skipTables`.
 */
export const Change = {
  name: "Change",
  schema: "bemi",
  tableName: "changes",
  readonly: true,
  properties: {
    id: { ...column("uuid", "id"), primary: true },
    database: nullable("text", "database"),
    schema: column("text", "schema"),
    table: column("text", "table"),
    primary_key: nullable("text", "primary_key"),
    operation: column("text", "operation"),
    before: column("json", "before"),
    after: column("json", "after"),
    context: column("json", "context"),
    committed_at: column("datetime", "committed_at"),
    queued_at: column("datetime", "queued_at"),
    created_at: column("datetime", "created_at"),
    transaction_id: column("bigint", "transaction_id"),
    position: column("bigint", "position"),
    commit_position: column("bigint", "commit_position"),
    ordinal: column("integer", "ordinal"),
    epoch: column("bigint", "epoch"),
    source: nullable("text", "source"),
    previous_key: nullable("text", "previous_key"),
    flags: nullable("text[]", "flags"),
    rules: nullable("integer", "rules"),
  },
} as const;
