/** What statements are is tested beside Python's classifier: see tests/clients/test_javascript.py. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { classify } from "#bemi/context/statements.js";

const MANY = 2_000_000;

test("texts of megabytes neither fail nor need room on the stack", () => {
  const values = "'x''y', ".repeat(MANY / 8);
  assert.ok(classify(`insert into t values (${values}1); select 1`).writes);
  assert.ok(classify(`select e'${"\\'😀''".repeat(MANY / 8)}'; delete from t`).writes);
  assert.ok(classify(`select ${"a".repeat(MANY)}; delete from t`).writes);
  assert.ok(classify(`${"/*".repeat(MANY)}${"*/".repeat(MANY)} delete from t`).writes);
  assert.ok(!classify(`select${" ".repeat(MANY)}x -- ${"delete from t ".repeat(MANY / 8)}`).writes);
});

test("what is known of a statement is kept apart for each set of functions", () => {
  const text = "with x as (select 1) select close_month() from x";
  const names = new Set(["close_month"]);
  assert.deepEqual(
    [classify(text), classify(text, names), classify(text)].map(({ writes }) => writes),
    [false, true, false],
  );
});
