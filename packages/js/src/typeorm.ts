/**
 * Sends the current context through TypeORM: before the first write of each transaction, by itself.
 * And reads the history, as `Change`.
 *
 * It knows where a data source has its pools; what is sent, and when, is a matter of `bemi/pg`.
 */

import type { DataSource } from "typeorm";

import { type Options, Sender } from "./context/sender.js";
import { contextOf, type Middleware } from "./internal/middleware.js";
import { install as installPool } from "./pg.js";

export type { Options } from "./context/sender.js";
export type { ChangeColumns, Image } from "./internal/change.js";
export type { Middleware } from "./internal/middleware.js";
export {
  Change,
  type ChangeConditions,
  type ChangeOrder,
  ChangeSchema,
} from "./internal/typeorm/change.js";

const INSTALLED = Symbol.for("bemi.typeorm");

/** TypeORM's driver for PostgreSQL: its pools are there once it is connected. */
interface PostgresDriver {
  connect(): Promise<void>;
  readonly master?: object | undefined;
  readonly slaves: readonly object[];
}

/**
 * Makes all connections of a data source send the context of their transactions.
 *
 * @param dataSource - of the type `postgres`, initialized or not; its replicas too.
 * @param options - see {@link Options}.
 * @returns the data source.
 * @throws TypeError for a data source of another database, and for an option that there is not.
 */
export function install<Source extends DataSource>(
  dataSource: Source,
  options: Options = {},
): Source {
  const { type } = dataSource.options;
  if (type !== "postgres") {
    throw new TypeError(`install takes a DataSource of the type postgres, not of ${type}`);
  }
  new Sender(options); // a misspelt option is told here
  const driver = dataSource.driver as unknown as PostgresDriver;
  if (INSTALLED in driver) return dataSource;
  installAll(driver, options);
  Object.defineProperty(driver, INSTALLED, { value: true });
  // It makes its pools anew after a `destroy`.
  const connect = driver.connect.bind(driver);
  driver.connect = async () => {
    await connect();
    installAll(driver, options);
  };
  return dataSource;
}

function installAll({ master, slaves }: PostgresDriver, options: Options): void {
  for (const pool of master ? [master, ...slaves] : slaves) installPool(pool, options);
}

/**
 * Installs the data source, and makes a middleware of Express that says what is the context of each
 * request, under the name that Bemi's earlier package has for it.
 *
 * @deprecated use `install`, and `contextMiddleware` of `bemi/express`
 */
export function setContext<Request extends object>(
  dataSource: DataSource,
  context: (request: Request) => object,
  options: Options = {},
): Middleware<Request> {
  install(dataSource, options);
  return contextOf(context);
}
