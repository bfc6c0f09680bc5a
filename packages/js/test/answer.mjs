// Answers what the Python client is asked, too: one JSON object a line in, one a line out. See
// tests/clients/test_javascript.py.
import { createInterface } from "node:readline";

import { parse } from "#bemi/context/json.js";
import { classify } from "#bemi/context/statements.js";
import { encode } from "#bemi/context/wire.js";

const answers = {
  classify: (text, functions) => classify(text, new Set(functions)),
  encode: (context, limit) => encode(context, { limit }),
};

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const [name, ...asked] = parse(line);
  console.log(JSON.stringify(answers[name](...asked)));
}
