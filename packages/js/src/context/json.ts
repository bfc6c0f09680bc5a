/** JSON without loss: integers of any length are read as `bigint`, and written as they are. */
import { randomUUID } from "node:crypto";

/** What JSON has. Objects are maps, whose members keep their order whatever they are called. */
export type Json = string | number | bigint | boolean | null | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

// ASCII, because a server in another encoding refuses characters that it does not have, and the
// application's transaction would fail.
const OUTSIDE_ASCII = /[\u007f-\uffff]/g;

/** The shortest text of a value, in ASCII. */
export function dump(value: Json): string {
  switch (typeof value) {
    case "string":
      return quote(value);
    case "number":
    case "bigint":
    case "boolean":
      return String(value);
  }
  if (value === null) return "null";
  if (Array.isArray(value)) return `[${value.map(dump).join(",")}]`;
  return `{${Array.from(value, ([name, each]) => `${quote(name)}:${dump(each)}`).join(",")}}`;
}

function quote(text: string): string {
  return JSON.stringify(text).replace(
    OUTSIDE_ASCII,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

// Texts first, so that digits in them are none; then integers that a double may not hold.
const LONG_INTEGERS = /"(?:[^"\\]+|\\.)*"|(?<![\w.+-])-?[1-9]\d{15,}(?![\d.eE])/g;
const MAX_DIGITS = 4300;

/**
 * What a JSON text says, with integers that a number can't hold exactly as `bigint`.
 *
 * @throws SyntaxError or RangeError where it is none, or has a number of thousands of digits
 */
export function parse(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  // What no text of the sender's can begin with.
  const mark = `bigint ${randomUUID()} `;
  const marked = text.replace(LONG_INTEGERS, (found) => {
    if (found.startsWith('"')) return found;
    if (found.length > MAX_DIGITS) throw new RangeError("a number of thousands of digits");
    return JSON.stringify(mark + found);
  });
  return JSON.parse(marked, (_, value: unknown) => {
    if (typeof value !== "string" || !value.startsWith(mark)) return value;
    const exact = BigInt(value.slice(mark.length));
    const number = Number(exact);
    return Number.isSafeInteger(number) ? number : exact;
  });
}
