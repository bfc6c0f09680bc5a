import assert from "node:assert/strict";
import { test } from "node:test";

import { currentContext, type Values, withContext } from "bemi";
import { parse } from "#bemi/context/json.js";
import { readRequestId, readTraceparent } from "#bemi/context/tracing.js";
import { encode } from "#bemi/context/wire.js";

import { cases } from "./cases.js";
import { Session } from "./session.js";

interface Encoded {
  name: string;
  context: Values;
  content: unknown;
}

for (const { name, context, content } of cases<Encoded>("encode")) {
  test(`encoding follows the spec: ${name}`, () => {
    assert.deepEqual(parse(encode(context)), content);
    assert.match(encode(context), /^[ -~]*$/);
  });
}

interface Merged {
  name: string;
  steps: ({ open: Values } | { close: true })[];
  current: Values;
}

for (const { name, steps, current } of cases<Merged>("merge")) {
  test(`merging follows the spec: ${name}`, () => {
    assert.deepEqual(after(steps), current);
  });
}

/** Blocks are closed by coming back from them: what is current after all of the steps. */
function after(steps: Merged["steps"]): Values {
  const open: Values[] = [];
  for (const step of steps) {
    if ("open" in step) open.push(step.open);
    else open.pop();
  }
  const inside = (left: readonly Values[]): Values => {
    const [next, ...more] = left;
    if (next === undefined) return currentContext();
    return withContext(next, () => {
      const seen = inside(more);
      withContext({ closed: true }, () => undefined);
      if (!more.length) assert.deepEqual(currentContext(), seen, "the outer one is back");
      return seen;
    });
  };
  return inside(open);
}

for (const each of cases<{ name: string; header: string; trace_id: string | null }>(
  "traceparent",
)) {
  test(`traces follow the spec: ${each.name}`, () => {
    assert.equal(readTraceparent(each.header)?.id ?? null, each.trace_id);
  });
}

for (const each of cases<{ name: string; header: string; request_id: string | null }>(
  "request_id",
)) {
  test(`ids of requests follow the spec: ${each.name}`, () => {
    assert.equal(readRequestId(each.header) ?? null, each.request_id);
  });
}

interface Sending {
  name: string;
  options?: Record<string, unknown>;
  steps: { context: Values; run: string; sends?: Values; fails?: boolean }[];
}

for (const { name, options = {}, steps } of cases<Sending>("sending")) {
  test(`sending follows the spec: ${name}`, () => {
    const { check_at_commit, ...more } = options;
    const at = new Session({
      autocommit: true,
      ...more,
      ...(check_at_commit === undefined ? {} : { checkAtCommit: Boolean(check_at_commit) }),
    });
    for (const { context, run, sends, fails = false } of steps) {
      withContext(context, () => {
        const before = at.sent.length;
        if (fails) at.fail(run);
        else at.run(run);
        assert.deepEqual(at.sent.slice(before), [sends], run);
      });
    }
  });
}
