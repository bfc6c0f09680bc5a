/**
 * Asks the history over HTTP, as `bemi serve` has it under `/api/v1`.
 *
 * ```ts
 * const history = new Client({ url: "https://history.example", token });
 * for await (const change of history.all("/changes", { query: { table: "todo" } })) { … }
 * ```
 */

import { events, lines } from "./internal/api/events.js";
import { parse } from "./internal/api/exact.js";
import type { Paths, Schemas } from "./internal/api/types.js";

export { ExactNumber } from "./internal/api/exact.js";
export type { Paths, Schemas };

/** A row of the relation `changes`. Values of its images are what JSON has, and exact numbers. */
export type Change = Schemas["Change"];

type Method = "get" | "post" | "patch" | "delete";
/** The paths that can be asked with a method. */
export type PathsOf<M extends Method> = {
  [P in keyof Paths]: Paths[P] extends Record<M, unknown> ? P : never;
}[keyof Paths];
interface Operation {
  query: object;
  path: object;
  body: unknown;
  answer: unknown;
  lines: boolean;
}
type Of<P extends keyof Paths, M extends Method> =
  Paths[P] extends Record<M, infer Found extends Operation> ? Found : never;

/** What is answered. */
export type Answer<P extends keyof Paths, M extends Method = "get"> = Of<P, M>["answer"];
/** Paths whose answers come page by page. */
export type ListPath = {
  [P in PathsOf<"get">]: Answer<P> extends { next: string | number | null } ? P : never;
}[PathsOf<"get">];
/** Paths whose answers are lines of JSON. */
export type LinesPath = {
  [P in PathsOf<"get">]: Of<P, "get">["lines"] extends true ? P : never;
}[PathsOf<"get">];
/** One of a list. */
export type Item<P extends ListPath> = {
  [K in keyof Answer<P>]: Answer<P>[K] extends readonly (infer I)[] ? I : never;
}[keyof Answer<P>];

/** What a question has besides its path. */
export type Asked<P extends keyof Paths, M extends Method> = {
  /** Filters; `undefined` and `null` are left out. */
  query?: Of<P, M>["query"];
  /** Ends the question. */
  signal?: AbortSignal;
} & (keyof Of<P, M>["path"] extends never ? unknown : { path: Of<P, M>["path"] }) &
  (Of<P, M>["body"] extends undefined ? unknown : { body: Of<P, M>["body"] });
type Arguments<P extends keyof Paths, M extends Method> =
  Record<string, never> extends Asked<P, M> ? [asked?: Asked<P, M>] : [asked: Asked<P, M>];

/** What a stream begins with and goes by. */
export interface Streamed {
  /** Filters, as of `/changes`; `start` is where to begin, by default now. */
  query?: Paths["/stream"]["get"]["query"];
  /** The id of the last event that was seen: the stream goes on behind it. */
  after?: string;
  /** Ends the stream, without an error. */
  signal?: AbortSignal;
}

/** Something that the history lacks. */
export interface Missing {
  source: string;
  /** Null: of all tables. */
  table: string | null;
  cause: string;
  from_position: string;
  to_position: string | null;
}

/** What comes in a stream; `id` is where it stands behind it. */
export type StreamEvent =
  | { type: "change"; id: string; change: Change }
  | { type: "missing"; id: string; missing: Missing };

/** How the client asks. */
export interface ClientOptions {
  /** Where `bemi serve` is reached. */
  url: string | URL;
  /** Of a program, or of an embed; a function is asked for each question. */
  token?: string | (() => string | Promise<string>);
  /** What asks, instead of the global `fetch`. */
  fetch?: typeof fetch;
}

/** An error that the API tells of, as `application/problem+json` has it. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";

  /**
   * @param status - of HTTP.
   * @param problem - as it was answered; what came from something before the API has no more than
   *   title and detail.
   * @param retryAfter - seconds after which to ask again, where that helps.
   */
  constructor(
    readonly status: number,
    readonly problem: Schemas["Problem"] & { [name: string]: unknown },
    readonly retryAfter: number | undefined,
  ) {
    super(problem.fix ? `${problem.detail}; fix: ${problem.fix}` : problem.detail);
  }

  /** `urn:bemi:…` */
  get type(): string {
    return this.problem.type;
  }
}

const PREFIX = "/api/v1";
/** Milliseconds, until a stream says otherwise. */
const RETRY = 2000;
/** Milliseconds; a timer of more ends at once. */
const LONGEST = 2 ** 31 - 1;

/** Asks one server, as whom the token is of. */
export class Client {
  readonly #base: string;
  readonly #token: ClientOptions["token"];
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions) {
    this.#base = String(options.url).replace(/\/+$/, "") + PREFIX;
    this.#token = options.token;
    this.#fetch = options.fetch ?? ((...asked) => fetch(...asked));
  }

  /**
   * Reads.
   *
   * @throws ProblemError for what the API tells of
   */
  get<P extends PathsOf<"get">>(path: P, ...asked: Arguments<P, "get">): Promise<Answer<P>> {
    return this.#answer("get", path, asked[0]);
  }

  /** Plans, applies, makes. */
  post<P extends PathsOf<"post">>(
    path: P,
    ...asked: Arguments<P, "post">
  ): Promise<Answer<P, "post">> {
    return this.#answer("post", path, asked[0]);
  }

  /** Alters. */
  patch<P extends PathsOf<"patch">>(
    path: P,
    ...asked: Arguments<P, "patch">
  ): Promise<Answer<P, "patch">> {
    return this.#answer("patch", path, asked[0]);
  }

  /** Revokes, removes. */
  delete<P extends PathsOf<"delete">>(
    path: P,
    ...asked: Arguments<P, "delete">
  ): Promise<Answer<P, "delete">> {
    return this.#answer("delete", path, asked[0]);
  }

  /** All of a list, page by page as they are taken; `query.limit` is the size of a page. */
  async *all<P extends ListPath>(
    path: P,
    ...asked: Arguments<P, "get">
  ): AsyncGenerator<Item<P>, void, undefined> {
    const given = (asked[0] ?? {}) as General;
    let query = given.query ?? {};
    for (;;) {
      const page = (await this.#answer("get", path, { ...given, query })) as {
        [name: string]: unknown;
        next?: string | number | null;
      };
      yield* Object.values(page).find(Array.isArray) as Item<P>[];
      if (page.next === null || page.next === undefined) return;
      query = { ...query, behind: page.next };
    }
  }

  /** Lines of JSON, as they come: of exports, and of tables as they were. */
  async *lines<P extends LinesPath>(
    path: P,
    ...asked: Arguments<P, "get">
  ): AsyncGenerator<{ [name: string]: unknown }, void, undefined> {
    const { body } = await this.request("get", path, asked[0] as General);
    if (body === null) return;
    for await (const line of lines(body, { last: true })) {
      if (line !== "") yield parse(line) as { [name: string]: unknown };
    }
  }

  /**
   * Changes as they are captured. A stream that breaks off is asked for again, behind the last
   * event: nothing is missed, and nothing comes twice. Keep an event's `id` once it is dealt with,
   * and give it as `after` to go on there.
   *
   * @throws ProblemError where asking again does not help, and what an event that can't be read
   *   throws
   */
  async *stream(streamed: Streamed = {}): AsyncGenerator<StreamEvent, void, undefined> {
    const { query = {}, signal } = streamed;
    let id = streamed.after ?? "";
    let retry = RETRY;
    let unreadable: unknown;
    while (!signal?.aborted) {
      try {
        const headers: Record<string, string> = id === "" ? {} : { "Last-Event-ID": id };
        const asked = { query, headers, ...(signal && { signal }) };
        const { body } = await this.request("get", "/stream", asked);
        if (body === null) throw new TypeError("a stream without a body");
        for await (const event of events(body, id)) {
          retry = event.retry ?? retry;
          let value: unknown;
          try {
            if (event.data !== "") value = parse(event.data);
          } catch (error) {
            unreadable = error;
            throw error;
          }
          id = event.id;
          if (event.data === "") continue;
          if (event.type === "change") yield { type: "change", id, change: value as Change };
          if (event.type === "missing") yield { type: "missing", id, missing: value as Missing };
        }
        await pause(retry, signal);
      } catch (error) {
        if (signal?.aborted) return;
        // Asked for again, it would be the same, and behind it a gap.
        if (unreadable !== undefined) throw error;
        if (error instanceof ProblemError && error.retryAfter === undefined) throw error;
        const seconds = error instanceof ProblemError ? error.retryAfter : undefined;
        await pause(seconds === undefined ? retry : seconds * 1000, signal);
      }
    }
  }

  /**
   * The answer as it is, for what is no JSON: files of exports, CSV.
   *
   * @param path - below `/api/v1`, with `{names}` for what `asked.path` has.
   * @throws ProblemError unless it was answered with success
   */
  async request(method: Method, path: string, asked: General = {}): Promise<Response> {
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
      const value = String(asked.path?.[name as keyof typeof asked.path]);
      // However they are written, they are of the path itself.
      if (value === "." || value === "..") throw new TypeError(`${name} can't be "${value}"`);
      return encodeURIComponent(value);
    });
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(asked.query ?? {})) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined && each !== null) query.append(name, String(each));
      }
    }
    const headers = new Headers(asked.headers);
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    if (token !== undefined) {
      // Headers would tell it, in an error that may be logged.
      if (!/^[!-~]*$/.test(token.trim()))
        throw new TypeError("the token is none: it has odd signs");
      headers.set("Authorization", `Bearer ${token}`);
    }
    if (asked.body !== undefined) headers.set("Content-Type", "application/json");
    const answer = await this.#fetch(`${this.#base}${filled}${query.size ? `?${query}` : ""}`, {
      method: method.toUpperCase(),
      headers,
      ...(asked.body !== undefined && { body: JSON.stringify(asked.body) }),
      ...(asked.signal && { signal: asked.signal }),
    });
    if (!answer.ok) throw await problem(answer);
    return answer;
  }

  async #answer<T>(method: Method, path: string, asked: object = {}): Promise<T> {
    const answer = await this.request(method, path, asked as General);
    return parse(await answer.text()) as T;
  }
}

/** The same for all paths. */
export interface General {
  query?: object;
  path?: object;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

async function problem(answer: Response): Promise<ProblemError> {
  const text = await answer.text();
  const after = Number(answer.headers.get("Retry-After") ?? undefined);
  const retryAfter = Number.isFinite(after) ? after : undefined;
  if (answer.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    return new ProblemError(answer.status, parse(text) as ProblemError["problem"], retryAfter);
  }
  const { status, statusText } = answer;
  const told = {
    type: "about:blank",
    title: statusText,
    status,
    detail: `${status} ${statusText}`,
  };
  // What stands before the API is asked again where it can't reach it.
  return new ProblemError(status, told, retryAfter ?? (status >= 502 ? RETRY / 1000 : undefined));
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(milliseconds, LONGEST));
    signal?.addEventListener("abort", done);
  });
}
