// The program of one library: does what the rules of tests/conformance ask, a JSON object a line.
//
//     node conformance/run.mjs pg

import { once } from "node:events";
import { createInterface } from "node:readline";

import { withContext } from "bemi";

const { told } = globalThis[Symbol.for("bemi.state.1")];
const { Library } = await import(`./libraries/${process.argv[2]}.mjs`);
const library = new Library();
const warned = [];
process.removeAllListeners("warning");
process.on("warning", (warning) => {
  if (warning.message.startsWith("bemi: ")) warned.push(warning.message);
  else console.error(warning.stack);
});

function untagged(value) {
  if (Array.isArray(value)) return value.map(untagged);
  if (value === null || typeof value !== "object") return value;
  switch (value.$) {
    case "bytes":
      return Buffer.from(value.hex, "hex");
    case "float":
      return Number(value.text.replace("nan", "NaN").replace("inf", "Infinity"));
    case "object": {
      const itself = {};
      itself.itself = itself;
      return itself;
    }
  }
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, untagged(each)]));
}

/** The rules name options as Python does. */
function inCamelCase(options) {
  const name = (snake) => snake.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(options).map(([each, value]) => [name(each), value]));
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  told.clear();
  for (const each of asked.told) told.add(each);
  let value = null;
  let error = null;
  try {
    const given = untagged(asked.arguments);
    if (asked.do === "open") given[3] = inCamelCase(given[3]);
    const does = () => library[asked.do](...given);
    value = (await withContext(untagged(asked.context), does)) ?? null;
  } catch (thrown) {
    error = { type: thrown?.constructor?.name ?? typeof thrown, message: String(thrown?.message) };
    if (process.env.BEMI_TEST_STACKS) console.error(thrown);
  }
  // Warnings are told a tick later.
  await new Promise(setImmediate);
  const answer = JSON.stringify({ value, error, warned, told: [...told] });
  warned.length = 0;
  if (!process.stdout.write(`${answer}\n`)) await once(process.stdout, "drain");
}
await library.close?.();
process.exit(0);
