/**
 * The form in which a context travels: the prefix and content of a logical message.
 *
 * The contract for all languages is in `spec/context.md`. No I/O. Encoding never fails, since a
 * write must not fail because of its context: what can't be encoded is replaced or shortened, and
 * listed under `_bemi`.
 */
import { types } from "node:util";

import { dump, type Json, type JsonObject } from "./json.js";
import { isLazy } from "./lazy.js";
import { cutMembers } from "./size.js";
import type { Values } from "./state.js";

export const PREFIX = "_bemi";

/** Bytes of the whole encoded context. The worker drops what is larger. */
export const LIMIT = 1 << 20;

/** The member of a context in which a client says what it had to alter. */
export const NOTES = "_bemi";

const REDACTED = "***";

// Deep enough for any request, far from where parsers give up.
const MAX_DEPTH = 64;
// The server's jsonb would take longer ones, but not every language's parser.
const MAX_BITS = 1024;
// No more fit into the limit; what refers to itself twice would go on for ever.
const MAX_VALUES = LIMIT / 2;
const MAX_NOTES = 100;
const MAX_PATH = 200;
const MAX_NAME = 100;
// Left free for the notes themselves, which grow while values are being cut.
const ROOM_FOR_NOTES = 2 * MAX_NOTES * (MAX_PATH + 4);
const ELLIPSIS = "…";
// In this mode only half a surrogate pair is one of these.
const UNSTORABLE = /[\0\ud800-\udfff]/gu;

// Letters and digits only, in lower case, at the end of a member's name.
const SECRET = new RegExp(
  "(?:password|passwd|pwd|passphrase|secret|secretkey|accesskey|apikey|privatekey|token|jwt" +
    "|authorization|cookie|sessionid|sessionkey|credential|creditcard|cardnumber|cvv|cvc)" +
    "(s?)\\p{Nd}*$",
  "u",
);
const SEPARATORS = /[^\p{L}\p{N}]+/gu;

/** From the inside out, so that a step further costs the same at any depth. */
type Path = { readonly above: Path; readonly name: string | number } | undefined;
type Kind = "replaced" | "truncated" | "redacted";

export interface EncodeOptions {
  /** Members whose names look like those of secrets are left out; see the contract. */
  redact?: boolean;
  /** The most bytes of the whole, at least a thousand. */
  limit?: number;
}

/** The content of the message: one JSON object, in ASCII, of at most `limit` bytes. */
export function encode(
  context: Values,
  { redact = true, limit = LIMIT }: EncodeOptions = {},
): string {
  const encoder = new Encoder(redact);
  const encoded = encoder.value(context, undefined, 0);
  const value: JsonObject = encoded instanceof Map ? encoded : new Map();
  let notes = value.get(NOTES);
  if (notes === undefined) notes = new Map();
  value.delete(NOTES);
  if (!(notes instanceof Map)) {
    encoder.note("replaced", NOTES);
    notes = new Map();
  }
  let text = dump(noted(value, notes, encoder));
  if (text.length <= limit) return text;
  const room = limit - Math.min(ROOM_FOR_NOTES, Math.floor(limit / 2));
  const cut = cutMembers(value, room, [], (path) => encoder.note("truncated", path.join(".")));
  // Notes that came in with the context may be the large ones.
  text = dump(noted(cut, dump(notes).length < MAX_PATH ? notes : new Map(), encoder));
  if (text.length <= limit) return text;
  const kinds = Array.from(encoder.notes.keys(), (kind): [string, Json] => [kind, [ELLIPSIS]]);
  return dump(new Map<string, Json>([...cut, [NOTES, new Map(kinds)]]));
}

/** Turns values into what JSON has, and remembers which ones it altered. */
class Encoder {
  readonly notes = new Map<Kind, string[]>();
  #left = MAX_VALUES;
  readonly #redact: boolean;

  constructor(redact: boolean) {
    this.#redact = redact;
  }

  note(kind: Kind, text: string): void {
    const paths = this.notes.get(kind) ?? [];
    this.notes.set(kind, paths);
    if (paths.length > MAX_NOTES) return;
    if (dump(text).length > MAX_PATH) {
      // No character takes more than the twelve of an escaped surrogate pair.
      text = Array.from(text.slice(0, MAX_PATH))
        .slice(0, Math.floor(MAX_PATH / 12))
        .join("");
      text += ELLIPSIS;
    }
    if (!paths.includes(text)) paths.push(paths.length < MAX_NOTES ? text : ELLIPSIS);
  }

  #note(kind: Kind, path: Path): void {
    if ((this.notes.get(kind)?.length ?? 0) > MAX_NOTES) return;
    const names: (string | number)[] = [];
    for (let at = path; at !== undefined; at = at.above) names.push(at.name);
    this.note(kind, names.reverse().join("."));
  }

  value(value: unknown, path: Path, depth: number): Json {
    try {
      return this.#value(value, path, depth);
    } catch {
      // The application's own getters and functions may raise anything.
      return this.#nameOf(value, path);
    }
  }

  #value(value: unknown, path: Path, depth: number): Json {
    switch (typeof value) {
      case "string":
        return this.#text(value, path);
      case "boolean":
        return value;
      case "number":
        // As PostgreSQL spells them, since JSON has no number for them.
        return Number.isFinite(value) ? value : String(value);
      case "bigint":
        return bits(value) > MAX_BITS ? this.#nameOf(value, path) : value;
      case "undefined":
        return null;
    }
    if (value === null) return null;
    this.#left -= 1;
    if (depth >= MAX_DEPTH || this.#left < 0) return this.#nameOf(value, path);
    if (typeof value === "function") {
      return isLazy(value) ? this.value(value(), path, depth) : this.#nameOf(value, path);
    }
    if (typeof value !== "object") return this.#nameOf(value, path);
    if (Array.isArray(value)) return this.#list(value, path, depth);
    // By their own methods: those of a subclass may go on for ever.
    if (types.isMap(value)) return this.#mapping(Map.prototype.entries.call(value), path, depth);
    if (types.isSet(value)) return this.#list([...Set.prototype.values.call(value)], path, depth);
    if (types.isDate(value)) return Date.prototype.toISOString.call(value);
    if (types.isAnyArrayBuffer(value) || ArrayBuffer.isView(value)) {
      return this.#nameOf(value, path);
    }
    if ("toJSON" in value && typeof value.toJSON === "function") {
      return this.value((value.toJSON as () => unknown)(), path, depth + 1);
    }
    if (isPlain(value)) return this.#mapping(Object.entries(value), path, depth);
    return this.#nameOf(value, path);
  }

  #list(items: readonly unknown[], path: Path, depth: number): Json[] {
    const encoded: Json[] = [];
    // Of one with holes the length says nothing of what there is; more don't fit anyhow.
    const length = Math.min(items.length, LIMIT);
    for (let index = 0; index < length; index += 1) {
      encoded.push(this.value(items[index], { above: path, name: index }, depth + 1));
    }
    return encoded;
  }

  #mapping(members: Iterable<[unknown, unknown]>, path: Path, depth: number): JsonObject {
    const encoded: JsonObject = new Map();
    for (const [key, member] of members) {
      if (member === undefined) continue;
      const name = this.#key(key, path);
      if (this.#redact && isSecret(name, member)) {
        this.#note("redacted", { above: path, name });
        encoded.set(name, REDACTED);
        continue;
      }
      const value = this.value(member, { above: path, name }, depth + 1);
      if (value !== null || !isLazy(member)) encoded.set(name, value);
    }
    return encoded;
  }

  #text(value: string, path: Path): string {
    const text = value.replace(UNSTORABLE, "\ufffd");
    if (text !== value) this.#note("replaced", path);
    return text;
  }

  #key(key: unknown, path: Path): string {
    if (typeof key === "string") {
      const text = key.replace(UNSTORABLE, "\ufffd");
      if (text !== key) this.#note("replaced", { above: path, name: text });
      return text;
    }
    const encoded = this.value(key, path, MAX_DEPTH);
    return typeof encoded === "string" ? encoded : dump(encoded);
  }

  #nameOf(value: unknown, path: Path): string {
    this.#note("replaced", path);
    return typeName(value);
  }
}

/** What a value's type is called, whatever it does when it is asked. */
export function typeName(value: unknown): string {
  try {
    if (typeof value === "symbol") return "Symbol";
    if (typeof value === "bigint") return "BigInt";
    const name: unknown = (value as object).constructor.name;
    if (typeof name === "string" && name !== "") {
      return name.slice(0, MAX_NAME).replace(UNSTORABLE, "\ufffd");
    }
  } catch {
    // One without a constructor, or that refuses to be looked at.
  }
  return typeof value === "function" ? "Function" : "Object";
}

/** Whether it is an object that is no instance of a class, of whichever realm. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function bits(value: bigint): number {
  const positive = value < 0n ? -value : value;
  const digits = positive.toString(16);
  return 4 * (digits.length - 1) + (32 - Math.clz32(parseInt(digits[0] ?? "0", 16)));
}

function isSecret(name: string, value: unknown): boolean {
  const found = SECRET.exec(name.toLowerCase().replace(SEPARATORS, ""));
  // `tokens` may be counted.
  return found !== null && !(found[1] && ["number", "bigint", "boolean"].includes(typeof value));
}

function noted(value: JsonObject, given: JsonObject, encoder: Encoder): JsonObject {
  const notes = new Map(given);
  for (const [kind, paths] of encoder.notes) {
    const earlier = given.get(kind);
    const before = Array.isArray(earlier) ? earlier : [];
    notes.set(kind, [...before, ...paths.filter((path) => !before.includes(path))]);
  }
  return notes.size ? new Map<string, Json>([...value, [NOTES, notes]]) : value;
}
