/** Makes a context fit that is too large: its largest members are cut to one common size. */
import { dump, type Json, type JsonObject } from "./json.js";

type Path = readonly string[];

/** Is told where something was cut. */
export type Truncated = (path: Path) => void;

const ELLIPSIS = "…";

/** Cuts the largest members down to one common size, the greatest that fits `room` characters. */
export function cutMembers(
  value: JsonObject,
  room: number,
  path: Path,
  truncated: Truncated,
): JsonObject {
  const names = new Map(Array.from(value.keys(), (name) => [name, dump(name).length + 2]));
  const sizes = new Map(Array.from(value, ([name, member]) => [name, dump(member).length]));
  const smallest = 16; // an ellipsis in quotes, or a number
  let left = room - 2 - dump(path.join(".")).length;
  const kept: string[] = [];
  for (const [name, size] of sizes) {
    left -= (names.get(name) ?? 0) + Math.min(size, smallest);
    if (left < 0) {
      truncated(path); // the object itself lost its last members
      break;
    }
    kept.push(name);
  }
  const available = kept.reduce((rest, name) => rest - (names.get(name) ?? 0), room - 2);
  const share = level(
    kept.map((name) => sizes.get(name) ?? 0),
    available,
  );
  return new Map(
    kept.map((name) => [name, cut(value.get(name) ?? null, share, [...path, name], truncated)]),
  );
}

/** `value`, made to fit into `room` characters of JSON. */
function cut(value: Json, room: number, path: Path, truncated: Truncated): Json {
  if (dump(value).length <= room) return value;
  if (value instanceof Map && value.size) return cutMembers(value, room, path, truncated);
  truncated(path);
  // A list loses its end, but not in the midst of an item; a text keeps its beginning.
  if (Array.isArray(value)) {
    const kept: Json[] = [];
    for (const item of value) {
      room -= dump(item).length + 1;
      if (room < 2) break;
      kept.push(item);
    }
    return kept;
  }
  if (typeof value !== "string") return null;
  return beginning(value, room - dump(ELLIPSIS).length) + ELLIPSIS;
}

/** The greatest size to which all larger ones can be cut so that their sum fits `room`. */
function level(sizes: readonly number[], room: number): number {
  const rising = [...sizes].sort((one, other) => one - other);
  for (const [index, size] of rising.entries()) {
    const share = Math.floor(room / (rising.length - index));
    if (size > share) return share;
    room -= size;
  }
  return room + (rising.at(-1) ?? 0);
}

/** As much of a text as takes at most `room` characters when encoded, quotes included. */
function beginning(text: string, room: number): string {
  let length = 0;
  room -= 2;
  for (const character of text) {
    room -= dump(character).length - 2;
    if (room < 0) break;
    length += character.length;
  }
  return text.slice(0, length);
}
