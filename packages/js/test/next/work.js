import { setTimeout as after } from "node:timers/promises";

import { mergeContext, outgoingHeaders } from "bemi";

/** Works for a while, adds to the context in between, and answers what it is then, as sent. */
export async function work(id) {
  await after(Number(id) % 5);
  mergeContext({ step: id });
  await after(Number(id) % 3);
  return JSON.parse(outgoingHeaders()["bemi-context"]);
}
