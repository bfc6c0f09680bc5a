/**
 * The words of a text of SQL. No parser: comments, texts and quoted names are passed over.
 *
 * By hand where a text may be long: a regular expression with alternatives would need room on the
 * stack for each character of it.
 */

/** What separates words, as the inside of a class of characters. */
export const BLANKS =
  " \\t-\\r\\x1c-\\x1f\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const BLANK = new RegExp(`[${BLANKS}]+`, "y");
const WORD = /[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_$]{0,1000}/uy;
const MORE_OF_A_WORD = /[\p{L}\p{N}_$]{1,1000}/uy;
const DOLLARS = /\$(?:[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_]{0,1000})?\$/uy;
const COMMENT = /--[^\n\r]*/y;
const COMMENT_EDGE = /\/\*|\*\//g;

/** Each statement's words in lower case, names as `"name"`, texts as `'`, marks as they are. */
export function statements(text: string): string[][] {
  const found: string[][] = [];
  let words: string[] = [];
  let at = 0;
  while (at < text.length) {
    const sign = text.charAt(at);
    const pair = text.slice(at, at + 2);
    const blank = matched(BLANK, text, at);
    let end: number;
    if (blank) {
      at += blank.length;
    } else if (pair === "--") {
      at += matched(COMMENT, text, at).length;
    } else if (pair === "/*") {
      at = endOfComment(text, at + 2);
    } else if ((pair === "e'" || pair === "E'") && (end = endOfEscaped(text, at + 2)) > 0) {
      words.push("'");
      at = end;
    } else if (sign === "'") {
      words.push("'");
      at = endOfQuoted(text, at + 1, "'");
    } else if (sign === '"') {
      end = endOfQuoted(text, at + 1, '"');
      words.push(text.slice(at, end));
      at = end;
    } else if (sign === ";") {
      found.push(words);
      words = [];
      at += 1;
    } else {
      const dollars = sign === "$" ? matched(DOLLARS, text, at) : "";
      const word = wordAt(text, at);
      if (dollars) {
        words.push("'");
        end = text.indexOf(dollars, at + dollars.length);
        at = end < 0 ? text.length : end + dollars.length;
      } else if (word) {
        words.push(word.toLowerCase());
        at += word.length;
      } else {
        const mark = String.fromCodePoint(text.codePointAt(at) ?? 0);
        words.push(mark);
        at += mark.length;
      }
    }
  }
  found.push(words);
  return found;
}

function matched(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}

function wordAt(text: string, at: number): string {
  const start = at;
  let part = matched(WORD, text, at);
  while (part) {
    at += part.length;
    part = matched(MORE_OF_A_WORD, text, at);
  }
  return text.slice(start, at);
}

/** Past the closing quote; a doubled one closes nothing. */
function endOfQuoted(text: string, at: number, quote: string): number {
  for (;;) {
    const end = text.indexOf(quote, at);
    if (end < 0) return text.length;
    if (text[end + 1] !== quote) return end + 1;
    at = end + 2;
  }
}

/** The same where a backslash escapes; -1 where the last one escapes nothing. */
function endOfEscaped(text: string, at: number): number {
  let doubled = -1;
  const edge = /['\\]/g;
  for (;;) {
    edge.lastIndex = at;
    const end = edge.exec(text)?.index ?? -1;
    if (end < 0) return text.length;
    if (text[end] === "\\") {
      if (end === text.length - 1) return doubled;
      at = end + 1 + String.fromCodePoint(text.codePointAt(end + 1) ?? 0).length;
    } else if (text[end + 1] === "'") {
      doubled = end + 1;
      at = end + 2;
    } else {
      return end + 1;
    }
  }
}

function endOfComment(text: string, at: number): number {
  let depth = 1;
  while (depth > 0) {
    COMMENT_EDGE.lastIndex = at;
    const edge = COMMENT_EDGE.exec(text);
    if (edge === null) return text.length;
    depth += edge[0] === "/*" ? 1 : -1;
    at = edge.index + 2;
  }
  return at;
}
