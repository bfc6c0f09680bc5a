/** Sends the current context through Knex, on PostgreSQL with `pg`. */

import { outside } from "./context/current.js";
import { Sender } from "./context/sender.js";
import { install as installClient, type Options } from "./pg.js";

export type { Options } from "./context/sender.js";

/** What is used of Knex. */
interface Knex {
  client?: { acquireRawConnection?: () => Promise<object>; pool?: { numUsed?(): number } };
}

/**
 * Makes all connections that a Knex opens from now on send the context of their transactions: to
 * be called where it is made, before its first query.
 *
 * @param knex - what `knex({ client: "pg", … })` gives.
 * @param options - see {@link Options}.
 * @returns the same.
 * @throws TypeError for what is no Knex, and for an option that there is not.
 */
export function install<Target extends object>(knex: Target, options: Options = {}): Target {
  new Sender(options);
  const { client } = knex as Knex;
  const acquire = client?.acquireRawConnection;
  if (!client || !acquire) throw new TypeError("install takes what knex({ client: 'pg' }) gives");
  // A connection is nobody's: it is opened in no context, though somebody waits for it.
  client.acquireRawConnection = async () => {
    const connection = await outside(() => acquire.call(client));
    return installClient(connection, options);
  };
  return knex;
}
