import assert from "node:assert/strict";
import { test } from "node:test";

import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

import { outgoingHeaders, withContext } from "bemi";
import { valuesOf } from "#bemi/context/request.js";
import { openTelemetry } from "#bemi/context/tracing.js";

import { CALLER, sent, TRACE } from "./requests.js";

const begun = (headers: object) =>
  valuesOf({ headers: new Headers({ ...headers }), endpoint: () => "/" });

test("the current span of OpenTelemetry says which trace it is", () => {
  assert.equal(openTelemetry(), undefined);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  assert.equal(openTelemetry(), undefined);
  const tracer = new BasicTracerProvider().getTracer("test");
  tracer.startActiveSpan("one", (span) => {
    const { traceId, spanId } = span.spanContext();
    const traceparent = `00-${traceId}-${spanId}-01`;
    assert.equal(openTelemetry()?.traceparent, traceparent);
    withContext(begun({}), () => {
      assert.equal(sent()["trace_id"], traceId);
      assert.equal(outgoingHeaders()["traceparent"], traceparent);
    });
    withContext(begun(CALLER), () => assert.equal(sent()["trace_id"], TRACE));
    span.end();
  });
  assert.equal(trace.getActiveSpan(), undefined);
  withContext(begun({}), () => assert.ok(!("trace_id" in sent())));
});
