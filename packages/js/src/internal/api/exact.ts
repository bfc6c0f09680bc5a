/**
 * JSON whose numbers keep all of their digits, which JavaScript's own parser does not: an integer
 * that a number can't hold becomes a bigint, another number that would lose digits an
 * {@link ExactNumber}. All others are what they always are.
 */

/** A number that JavaScript has no number for: its digits, as the server has sent them. */
export class ExactNumber {
  /**
   * @param text - as in JSON.
   */
  constructor(readonly text: string) {}

  toString(): string {
    return this.text;
  }

  /** The text: JSON of JavaScript's has no other place for it. */
  toJSON(): string {
    return this.text;
  }

  /** The nearest number. */
  valueOf(): number {
    return Number(this.text);
  }
}

/** What a number that loses digits has, and few texts have. */
const SUSPICIOUS = /[\d.]{16}|\d[eE][+-]?\d{3}/;
// Not whole texts: long ones are more than an expression can hold.
const TOKENS = /"|\\.|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** So many digits come back from a number as they were. */
const SAFE_DIGITS = 15;

/**
 * What the text says.
 *
 * @throws SyntaxError as JSON.parse does
 */
export function parse(text: string): unknown {
  if (!SUSPICIOUS.test(text)) return JSON.parse(text);
  // What no text of the answer can begin with.
  const mark = `number ${crypto.randomUUID()} `;
  let marked = false;
  let inText = false;
  const changed = text.replace(TOKENS, (token) => {
    if (token === '"') inText = !inText;
    if (inText || !/\d$/.test(token) || !losesDigits(token)) return token;
    marked = true;
    return `"${mark}${token}"`;
  });
  if (!marked) return JSON.parse(text);
  return JSON.parse(changed, (_name, value: unknown) => {
    if (typeof value !== "string" || !value.startsWith(mark)) return value;
    const token = value.slice(mark.length);
    return /^-?\d+$/.test(token) ? BigInt(token) : new ExactNumber(token);
  });
}

function losesDigits(token: string): boolean {
  if (token.length <= SAFE_DIGITS) return !Number.isFinite(Number(token)) || isTooSmall(token);
  if (/^-?\d+$/.test(token)) return !Number.isSafeInteger(Number(token));
  return normal(token) !== normal(String(Number(token)));
}

/** As of 1e-400, of which nothing is left. */
function isTooSmall(token: string): boolean {
  return Number(token) === 0 && /[1-9]/.test(token.split(/[eE]/)[0] ?? "");
}

/** One spelling of each number: its digits, and the power of ten of the last of them. */
function normal(token: string): string {
  const [mantissa = "", exponent = "0"] = token.split(/[eE]/);
  const [whole = "", fraction = ""] = mantissa.replace("-", "").split(".");
  const digits = (whole + fraction).replace(/^0+/, "");
  const kept = digits.replace(/0+$/, "");
  const power = Number(exponent) - fraction.length + digits.length - kept.length;
  return kept === "" ? "0" : `${token.startsWith("-") ? "-" : ""}${kept}e${power}`;
}
