/** Sends the current context through Sequelize 6, on PostgreSQL with `pg`. */

import { warnOnce } from "./context/notice.js";
import { Sender } from "./context/sender.js";
import { install as installClient, type Options } from "./pg.js";

export type { Options } from "./context/sender.js";

/** What is used of Sequelize. */
interface Sequelize {
  addHook?(name: "afterConnect", hook: (connection: unknown) => void): unknown;
}

/**
 * Makes all connections that a Sequelize opens from now on send the context of their transactions:
 * to be called where it is made, before its first query.
 *
 * @param sequelize - what `new Sequelize(…)` gives.
 * @param options - see {@link Options}.
 * @returns the same.
 * @throws TypeError for what is no Sequelize, and for an option that there is not.
 */
export function install<Target extends object>(sequelize: Target, options: Options = {}): Target {
  new Sender(options);
  const { addHook } = sequelize as Sequelize;
  if (!addHook) throw new TypeError("install takes a Sequelize");
  addHook.call(sequelize, "afterConnect", (connection) => {
    try {
      installClient(connection as object, options);
    } catch (error) {
      // The application goes on without contexts rather than without a connection.
      warnOnce(`no context is sent through Sequelize: ${(error as Error).message}`);
    }
  });
  return sequelize;
}
