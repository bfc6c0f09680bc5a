/**
 * Tells by its words whether a statement writes, and what it does to the open transaction.
 *
 * Where the words don't tell, a statement counts as one that writes, which costs a message and
 * loses nothing. What functions do that a SELECT calls can't be seen: those that the application
 * names count. No I/O. Mirrors `bemi.context.statements` of the Python client.
 */
import { BLANKS, statements } from "./words.js";

/** What a statement does to the transaction; `end` is COMMIT, and PREPARE TRANSACTION. */
export type Control = "begin" | "end" | "rollback" | "savepoint" | "release" | "rollback to";

/** What the text that one call of a driver sends does; it may hold several statements. */
export interface Statement {
  /** It may change rows, or the schema. */
  readonly writes: boolean;
  /** A transaction block may be opened and ended around it. */
  readonly wrappable: boolean;
  /** It holds more than one statement. */
  readonly several: boolean;
  /** What it does to the transaction, in order, with the name of the savepoint if there is one. */
  readonly controls: readonly (readonly [Control, string])[];
  /** It may change who the session's role is. */
  readonly roles: boolean;
}

const READ: Statement = {
  writes: false,
  wrappable: true,
  several: false,
  controls: [],
  roles: false,
};
const WRITE: Statement = { ...READ, writes: true };

const WRITES = new Set(["insert", "update", "delete", "merge"]);
const DDL = new Set([
  "create",
  "alter",
  "drop",
  "comment",
  "grant",
  "import",
  "reassign",
  "revoke",
  "security",
]);
const SETTERS: ReadonlySet<string> = new Set(["set_config"]);
// What `create`, `alter` and `drop` may name inside of a transaction block.
const IN_BLOCK = new Set([
  "aggregate",
  "cast",
  "collation",
  "column",
  "constraint",
  "conversion",
  "default",
  "domain",
  "event",
  "extension",
  "foreign",
  "function",
  "global",
  "group",
  "index",
  "language",
  "local",
  "materialized",
  "operator",
  "or",
  "owned",
  "policy",
  "procedural",
  "procedure",
  "publication",
  "recursive",
  "role",
  "routine",
  "rule",
  "schema",
  "sequence",
  "server",
  "statistics",
  "table",
  "temp",
  "temporary",
  "text",
  "transform",
  "trigger",
  "trusted",
  "type",
  "unique",
  "unlogged",
  "user",
  "view",
]);
const READERS = new Set(["values", "table", "declare", "fetch"]);
const NONE: ReadonlySet<string> = new Set();

// Statements that need no second look: one alone, whose first word says everything.
const PLAIN = new RegExp(`^[${BLANKS}]*(insert|update|delete|select)(?![\\p{L}\\p{N}_])`, "iu");
const ONLY_BLANKS = new RegExp(`^[${BLANKS}]*$`);
// What a SELECT may be that says more: into a table, or setting a role.
const TELLING = /into|set_config/i;

const LONGEST_CACHED = 4096;
const MOST_CACHED = 4096;
const caches = new WeakMap<ReadonlySet<string>, Map<string, Statement>>();

/** What a statement does. `functions`: names in lower case that count as writes when called. */
export function classify(text: string, functions: ReadonlySet<string> = NONE): Statement {
  const plain = PLAIN.exec(text);
  if (plain !== null && isAlone(text)) {
    if (plain[1]?.toLowerCase() !== "select") return WRITE;
    if (functions.size === 0 && !TELLING.test(text)) return READ;
  }
  if (text.length > LONGEST_CACHED) return classifyAnew(text, functions);
  let cache = caches.get(functions);
  if (cache === undefined) caches.set(functions, (cache = new Map()));
  let found = cache.get(text);
  if (found === undefined) {
    found = classifyAnew(text, functions);
    // The oldest one goes: maps keep the order in which they were filled.
    if (cache.size >= MOST_CACHED)
      for (const oldest of cache.keys()) {
        cache.delete(oldest);
        break;
      }
    cache.set(text, found);
  }
  return found;
}

/** Whether nothing comes after the first semicolon. */
function isAlone(text: string): boolean {
  const end = text.indexOf(";");
  return end < 0 || end === text.length - 1 || ONLY_BLANKS.test(text.slice(end + 1));
}

function classifyAnew(text: string, functions: ReadonlySet<string>): Statement {
  const found = statements(text)
    .filter((words) => words.length > 0)
    .map((words) => one(words, functions));
  const [only] = found;
  if (found.length === 1 && only !== undefined) return only;
  const controls = found.flatMap((each) => each.controls);
  return {
    writes: found.some((each) => each.writes),
    wrappable: controls.length === 0 && found.every((each) => each.wrappable),
    several: found.length > 1,
    controls,
    roles: found.some((each) => each.roles),
  };
}

function one(words: readonly string[], functions: ReadonlySet<string>): Statement {
  const start = words.findIndex((word) => word !== "(");
  if (start < 0) return READ;
  if (start > 0) words = words.slice(start);
  const [first = "", second = ""] = words;
  const control = controlOf(words);
  if (control !== undefined) return { ...READ, wrappable: false, controls: [control] };
  if (WRITES.has(first) || first === "truncate") return WRITE;
  if (first === "with") {
    if (holdsWrite(words)) return WRITE;
  } else if (first === "explain") {
    const runs = words.includes("analyze") || words.includes("analyse");
    const named = words.includes("execute") || words.includes("create");
    if (runs && (named || holdsWrite(words))) return WRITE;
  } else if (first === "copy") {
    return copiesFrom(words) || holdsWrite(words) ? WRITE : READ;
  } else if (first === "select") {
    if (words.includes("into")) return WRITE;
    if (calls(words, SETTERS)) return { ...READ, writes: calls(words, functions), roles: true };
  } else if (first === "do" || first === "call") {
    // They may commit inside, which a block around them would forbid.
    return { ...WRITE, wrappable: false };
  } else if (first === "execute") {
    return WRITE; // a prepared statement, by its name alone
  } else if (DDL.has(first)) {
    const anywhere = !["create", "alter", "drop"].includes(first) || IN_BLOCK.has(second);
    return { ...WRITE, wrappable: anywhere && !words.includes("concurrently") };
  } else if (!READERS.has(first)) {
    // vacuum, set, show, listen, …: nothing that a context could belong to.
    return { ...READ, wrappable: false, roles: setsRole(words) };
  }
  return calls(words, functions) ? WRITE : READ;
}

function controlOf(words: readonly string[]): readonly [Control, string] | undefined {
  const [first = "", second = ""] = words;
  if (first === "begin" || (first === "start" && second === "transaction")) return ["begin", ""];
  if (first === "prepare" && second === "transaction") return ["end", ""];
  if (["commit", "end", "rollback", "abort"].includes(first)) {
    if (second === "prepared") return undefined;
    const rest = words.slice(1).filter((word) => word !== "work" && word !== "transaction");
    if (first === "rollback" && rest[0] === "to") return ["rollback to", savepoint(rest.slice(1))];
    return [first === "commit" || first === "end" ? "end" : "rollback", ""];
  }
  if (first === "savepoint" || first === "release") return [first, savepoint(words.slice(1))];
  return undefined;
}

function savepoint(words: readonly string[]): string {
  const name = (words.length > 1 && words[0] === "savepoint" ? words[1] : words[0]) ?? "";
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}

/** Whether a part of it may write; `for update` and `for no key update` do not. */
function holdsWrite(words: readonly string[]): boolean {
  return words.some(
    (word, at) => at > 0 && WRITES.has(word) && !["for", "key", "."].includes(words[at - 1] ?? ""),
  );
}

/** SET ROLE and SET SESSION AUTHORIZATION, and what takes them back. */
function setsRole(words: readonly string[]): boolean {
  const [first = "", second = "", third = "", fourth = ""] = words;
  if (first === "reset" || first === "discard") return true;
  if (first !== "set") return false;
  const names = ["role", "authorization", "session_authorization"];
  if (names.includes(second) || names.includes(third)) return true;
  return third === "session" && fourth === "authorization";
}

function copiesFrom(words: readonly string[]): boolean {
  let depth = 0;
  for (const word of words) {
    if (word === "(") depth += 1;
    else if (word === ")") depth -= 1;
    else if (depth === 0 && (word === "from" || word === "to")) return word === "from";
  }
  return false;
}

function calls(words: readonly string[], functions: ReadonlySet<string>): boolean {
  if (functions.size === 0) return false;
  return words.some((word, at) => {
    if (words[at + 1] !== "(") return false;
    return functions.has(word.startsWith('"') ? word.slice(1, -1) : word);
  });
}
