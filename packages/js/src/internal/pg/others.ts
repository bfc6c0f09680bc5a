/** What others have made for `pg`, such as cursors, streams and COPY: watched, and made to wait. */

import { bind } from "../../context/current.js";
import type { Submittable } from "./library.js";
import type { Asked, Session, Told } from "./queries.js";

/**
 * Watches what others have made for `pg`, and has it told of things in the context of who has
 * asked. `asked`: where it may write.
 */
export function watch(query: Submittable, session: Session, asked?: Asked): void {
  const handlers = query as unknown as Record<string, unknown>;
  const inScope = bind((handler: Handler, given: unknown[]) => handler.apply(query, given));
  for (const name of HANDLERS) {
    const handler = handlers[name];
    if (typeof handler !== "function") continue;
    handlers[name] = (...given: unknown[]) => inScope(handler as Handler, given);
  }
  if (!asked) return;
  session.begins(asked);
  closeBehind(query, asked);
  endBehind(query, asked);
  const { handleError, handleReadyForQuery } = query;
  let told = false;
  query.handleError = (error, connection) => {
    if (!told) session.ended(asked, true);
    if (!told) asked.finish?.(() => undefined);
    told = true;
    return handleError.call(query, error, connection);
  };
  query.handleReadyForQuery = (connection) => {
    if (!told) session.ended(asked, false);
    const ready = () => handleReadyForQuery.call(query, connection);
    const end = told ? undefined : asked.finish;
    told = true;
    if (!end) return ready();
    end((error) => (error ? handleError.call(query, error, connection) : ready()));
    return undefined;
  };
}

/** A cursor, or that of a stream. */
interface Cursor {
  read: Handler;
  close: Handler;
}

function cursorOf(query: Submittable): Cursor | undefined {
  const { cursor = query } = query as { cursor?: object };
  const { read, close } = cursor as Partial<Cursor>;
  if (typeof read !== "function" || typeof close !== "function" || "pipe" in cursor)
    return undefined;
  return cursor as Cursor;
}

/** Who closes a cursor listens to the connection, and ends that as soon as the cursor is closed. */
function closeBehind(query: Submittable, asked: Asked): void {
  const cursor = cursorOf(query);
  if (!cursor) return;
  const { close } = cursor;
  const closes = (told: Told) =>
    close.call(cursor, (error: unknown) => {
      if (asked.finish) (asked.finishing ??= []).push(() => told(error));
      else told(error);
    });
  cursor.close = (told?: unknown) => {
    if (typeof told === "function") return closes(told as Told);
    return new Promise<void>((resolve, reject) => {
      closes((error) => (error ? reject(error) : resolve()));
    });
  };
}

/** The same of a stream of what a COPY gives, which ends before the statement does. */
function endBehind(query: Submittable, asked: Asked): void {
  const stream = query as { push?: Handler };
  const { push } = stream;
  if (typeof push !== "function" || cursorOf(query)) return;
  stream.push = (chunk, ...rest) => {
    if (chunk !== null || !asked.finish) return push.call(query, chunk, ...rest);
    (asked.finishing ??= []).push(() => void push.call(query, null));
    return false;
  };
}

/**
 * A cursor that is closed before it was submitted takes itself for done, and would never end once
 * it is submitted. One that waits here is asked right behind that instead.
 */
export function postpone(query: Submittable): void {
  const cursor = cursorOf(query);
  if (!cursor) return;
  const { read, close } = cursor;
  const asked: (() => void)[] = [];
  const later =
    (method: Handler) =>
    (...given: unknown[]) => {
      const ask = () => method.apply(cursor, given);
      if (typeof given.at(-1) === "function") return void asked.push(ask);
      return new Promise((resolve, reject) => {
        asked.push(() => void (ask() as Promise<unknown>).then(resolve, reject));
      });
    };
  Object.assign(cursor, { read: later(read), close: later(close) });
  const { submit, handleError } = query;
  const behind = <Result>(result: Result): Result => {
    Object.assign(cursor, { read, close });
    for (const ask of asked.splice(0)) ask();
    return result;
  };
  query.submit = (connection) => behind(submit.call(query, connection));
  query.handleError = (error, connection) => behind(handleError.call(query, error, connection));
}

type Handler = (...given: unknown[]) => unknown;

const HANDLERS = [
  "handleRowDescription",
  "handleDataRow",
  "handlePortalSuspended",
  "handleCommandComplete",
  "handleEmptyQuery",
  "handleCopyInResponse",
  "handleCopyData",
  "handleError",
  "handleReadyForQuery",
] as const;
