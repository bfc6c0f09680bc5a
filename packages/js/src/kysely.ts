/**
 * Sends the current context through Kysely, whose PostgresDialect takes a pool of `pg`.
 *
 * ```ts
 * new Kysely({ dialect: new PostgresDialect({ pool: install(new Pool({ … })) }) })
 * ```
 */

export { install, type Options } from "./pg.js";
