/**
 * Sends the current context through Prisma, on its adapter for `pg`: before the first write of each
 * transaction, by itself.
 *
 * It knows where the adapter has its pool, and that Prisma runs what several callers ask for in one
 * turn of the loop as one of them; what is sent, and when, is a matter of `bemi/pg`.
 */

import { type Options, Sender } from "./context/sender.js";
import { contextOf, type Middleware } from "./internal/middleware.js";
import { turn } from "./internal/turns.js";
import { install as installPool } from "./pg.js";

export type { Options } from "./context/sender.js";
export type { Middleware } from "./internal/middleware.js";

/** A client of Prisma, from `new PrismaClient({ adapter })`. */
export interface Client {
  $extends(extension: never): unknown;
}

/** `PrismaPg` of `@prisma/adapter-pg`. */
export interface Adapter {
  readonly adapterName: string;
  connect(): Promise<object>;
}

interface Connected {
  /** The pool of `pg`. */
  underlyingDriver(): object;
}

interface Operation {
  args: unknown;
  query(args: unknown): Promise<unknown>;
}

const INSTALLED = Symbol.for("bemi.prisma");

/**
 * Makes a client whose transactions send their context.
 *
 * ```ts
 * const adapter = new PrismaPg({ connectionString });
 * const prisma = withBemi(new PrismaClient({ adapter }), adapter);
 * ```
 *
 * It is the last one of a client's extensions, and `$on` is called before, as with all of them.
 *
 * @param client - one that has not connected yet.
 * @param adapter - the client's.
 * @param options - see {@link Options}.
 * @returns an extended client; what the one that was given writes may have another one's context.
 * @throws TypeError for what are no client and adapter, and for an option that there is not
 */
export function withBemi<Given extends Client>(
  client: Given,
  adapter: Adapter,
  options: Options = {},
): Given {
  if (typeof client?.$extends !== "function") {
    throw new TypeError("withBemi takes a PrismaClient, and its adapter");
  }
  installAdapter(adapter, options);
  const extension = {
    name: "bemi",
    query: {
      async $allOperations({ args, query }: Operation): Promise<unknown> {
        const wait = turn();
        if (wait) await wait;
        return query(args);
      },
    },
  };
  return client.$extends(extension as never) as Given;
}

function installAdapter(adapter: Adapter, options: Options): void {
  if (typeof adapter?.connect !== "function" || adapter.adapterName !== "@prisma/adapter-pg") {
    throw new TypeError("withBemi takes the client's adapter, a PrismaPg, as its second argument");
  }
  new Sender(options); // a misspelt option is told here
  if (INSTALLED in adapter) return;
  Object.defineProperty(adapter, INSTALLED, { value: true });
  const connect = adapter.connect.bind(adapter);
  adapter.connect = async () => {
    const connected = (await connect()) as Connected;
    installPool(connected.underlyingDriver(), options);
    return connected;
  };
}

/**
 * The same, under the name that Bemi's earlier package has for it.
 *
 * @deprecated use `withBemi`
 */
export const withBemiExtension = withBemi;

/**
 * A middleware of Express that says what is the context of each request, under the name that Bemi's
 * earlier package has for it.
 *
 * @deprecated use `contextMiddleware` of `bemi/express`
 */
export function bemiMiddleware<Request extends object>(
  context: (request: Request) => object,
): Middleware<Request> {
  return contextOf(context);
}
