/** The cases of `spec/context-cases`, which clients of all languages pass. */
import { readFileSync } from "node:fs";

import { parse } from "#bemi/context/json.js";

const FOLDER = new URL("../../../../spec/context-cases/", import.meta.url);

/** Read without loss: integers beyond 2^53 are cases, too. */
export function cases<Case extends { name: string }>(file: string): Case[] {
  return parse(readFileSync(new URL(`${file}.json`, FOLDER), "utf8")) as Case[];
}
