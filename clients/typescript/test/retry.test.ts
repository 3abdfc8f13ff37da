import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { GatewayError, notSent } from "../dist/errors.js";
import { Executed, Retry } from "../dist/gen/thingspace/gateway/v1/error_pb.js";
import { type AttemptOptions, backoffMs, type FailedAttempt, mustRepeat, repeat, timerMs } from "../dist/retry.js";
import { tokenIsRenewable } from "../dist/token.js";
import { gatewayError } from "./support.ts";

const { NOW, LATER, NEVER, UNSPECIFIED: NO_RETRY } = Retry;
const { NO, UNKNOWN, UNSPECIFIED: NO_EXECUTED } = Executed;

// [executed, retry, whether a change is repeated, whether another call is repeated]
const RULE: [Executed, Retry, boolean, boolean][] = [
  [NO, NOW, true, true],
  [NO, LATER, true, true],
  [NO, NO_RETRY, true, true],
  [NO, NEVER, false, false],
  [UNKNOWN, NOW, true, true],
  [UNKNOWN, LATER, true, true],
  [UNKNOWN, NO_RETRY, true, true],
  [UNKNOWN, NEVER, true, false],
  [NO_EXECUTED, NOW, true, true],
  [NO_EXECUTED, LATER, true, true],
  [NO_EXECUTED, NO_RETRY, true, true],
  [NO_EXECUTED, NEVER, true, false],
];

for (const [executed, retry, change, other] of RULE) {
  test(`an error with executed = ${Executed[executed]} and retry = ${Retry[retry]} is repeated as the rule says`, () => {
    assert.equal(mustRepeat({ executed, retry }, true), change);
    assert.equal(mustRepeat({ executed, retry }, false), other);
  });
}

test("the delay doubles from 0.1 s to 10 s, with jitter", () => {
  assert.equal(backoffMs(0, () => 0), 100);
  assert.equal(backoffMs(0, () => 1), 200);
  assert.equal(backoffMs(1, () => 0), 200);
  assert.equal(backoffMs(100_000, () => 0), 5_000);
  assert.equal(backoffMs(100_000, () => 1), 10_000);
  for (let failures = 0; failures < 50; failures++) {
    const delay = backoffMs(failures);
    assert.ok(delay >= 100 && delay <= 10_000);
  }
});

test("the deadline of an attempt is a valid grpc-timeout, and fits into the time limit", async () => {
  const deadlineOf = (options: object) => repeat(async ({ timeoutMs }) => timeoutMs, true, options);
  assert.equal(await deadlineOf({}), 90_000);
  assert.equal(await deadlineOf({ attemptTimeoutMs: 0.5 }), 1);
  assert.equal(await deadlineOf({ attemptTimeoutMs: Infinity, totalTimeoutMs: Infinity }), 99_999_999);
  const limited = await deadlineOf({ totalTimeoutMs: 1_000.5 });
  assert.ok(Number.isInteger(limited) && limited! <= 1_001);
  assert.equal(timerMs(-1), 1);
});

/** Runs a change whose attempts fail with these errors and then succeed. */
async function change(errors: unknown[], options: { totalTimeoutMs?: number; renewable?: boolean; isChange?: boolean } = {}) {
  const retries: FailedAttempt[] = [];
  const attempt = async ({ contextValues }: AttemptOptions) => {
    contextValues.set(tokenIsRenewable, options.renewable ?? false);
    if (errors.length > 0) throw errors.shift();
    return "OK";
  };
  const onRetry = (failed: FailedAttempt) => retries.push(failed);
  const result = await repeat(attempt, options.isChange ?? true, {
    onRetry,
    totalTimeoutMs: options.totalTimeoutMs ?? 60_000,
  }).catch((error) => error);
  return { result, retries };
}

const lost = () => new ConnectError("connection lost", Code.Unavailable);
const refused = () => gatewayError(Code.Unauthenticated, "UNAUTHENTICATED", { retry: "LATER", executed: "UNKNOWN" }, 60_000);

test("a change is repeated until it succeeds", async () => {
  const { result, retries } = await change([lost(), gatewayError(Code.Internal, "INTERNAL", { retry: "NEVER", executed: "UNKNOWN" })]);
  assert.equal(result, "OK");
  assert.deepEqual(retries.map(({ number }) => number), [1, 2]);
  assert.deepEqual(retries.map(({ error }) => error.code), [Code.Unavailable, Code.Internal]);
  assert.ok(retries.every(({ error }) => error.outcomeUnknown));
});

test("an error that is final ends a change with a known outcome", async () => {
  const { result, retries } = await change([lost(), gatewayError(Code.NotFound, "THINGSPACE_REFUSED", { retry: "NEVER", executed: "NO" })]);
  assert.ok(result instanceof GatewayError);
  assert.equal(result.code, Code.NotFound);
  assert.equal(result.outcomeUnknown, false);
  assert.equal(retries.length, 1);
});

test("the outcome is unknown if the time limit passes after a lost connection", async () => {
  const { result } = await change(Array.from({ length: 99 }, lost), { totalTimeoutMs: 300 });
  assert.ok(result instanceof GatewayError && result.cause instanceof GatewayError);
  assert.equal(result.code, Code.Unavailable);
  assert.equal(result.outcomeUnknown, true);
  assert.match(result.message, /^no success within 0.3 s; the last error: connection lost$/);
});

test("the outcome is known if the time limit passes after executed = NO", async () => {
  const busy = gatewayError(Code.FailedPrecondition, "DEVICE_BUSY", { retry: "LATER", executed: "NO" }, 5_000);
  const { result, retries } = await change([lost(), busy], { totalTimeoutMs: 3_000 });
  assert.ok(result instanceof GatewayError);
  assert.equal(result.outcomeUnknown, false);
  assert.equal(retries.length, 1, "no attempt fits into the time limit after the delay, so the call ends at once");
});

test("a call that changes nothing has no unknown outcome", async () => {
  const { result } = await change([gatewayError(Code.Internal, "INTERNAL", { retry: "NEVER" })], { isChange: false });
  assert.ok(result instanceof GatewayError);
  assert.equal(result.outcomeUnknown, false);
});

test("a refused token is renewed once, at once", async () => {
  const { result, retries } = await change([refused()], { renewable: true });
  assert.equal(result, "OK");
  assert.deepEqual(retries.map(({ delayMs }) => delayMs), [0]);
});

test("a token that is refused twice is an error, and leaves the outcome of earlier attempts", async () => {
  const first = await change([refused(), refused()], { renewable: true });
  assert.equal(first.result.code, Code.Unauthenticated);
  assert.equal(first.result.outcomeUnknown, false);
  const later = await change([lost(), refused(), refused()], { renewable: true });
  assert.equal(later.result.outcomeUnknown, true);
});

test("a refused token that cannot be renewed is an error", async () => {
  const { result, retries } = await change([refused()]);
  assert.equal(result.code, Code.Unauthenticated);
  assert.equal(retries.length, 0);
});

test("a token function that fails is called again, and leaves the outcome of earlier attempts", async () => {
  const noToken = notSent("no token", Code.Unavailable, "NOW");
  const { result, retries } = await change([noToken, lost(), noToken]);
  assert.equal(result, "OK");
  assert.deepEqual(retries.map(({ error }) => error.outcomeUnknown), [false, true, true]);
});

test("a cancelled call waits no longer, and is not repeated", async () => {
  const cancellation = new AbortController();
  const start = performance.now();
  const later = gatewayError(Code.Unavailable, "JOURNAL_UNAVAILABLE", { retry: "LATER", executed: "UNKNOWN" }, 60_000);
  const call = repeat(() => Promise.reject(later), true, {
    signal: cancellation.signal,
    onRetry: () => cancellation.abort("enough"),
  });
  await assert.rejects(call, { code: Code.Canceled, outcomeUnknown: true, cause: "enough" });
  assert.ok(performance.now() - start < 10_000);
  const before = repeat(() => assert.fail(), true, { signal: cancellation.signal });
  await assert.rejects(before, { code: Code.Canceled, outcomeUnknown: false });
});
