import { Code, ConnectError, type ContextValues, createContextValues } from "@connectrpc/connect";
import { GatewayError } from "./errors.js";
import { Executed, Reason, Retry } from "./gen/thingspace/gateway/v1/error_pb.js";
import { tokenIsRenewable } from "./token.js";

/** An attempt that failed and that the library repeats. */
export interface FailedAttempt {
  /** The number of failed attempts of this call or watch, from 1 on. */
  readonly number: number;
  /** The error of the attempt. */
  readonly error: GatewayError;
  /** The delay before the next attempt in milliseconds. */
  readonly delayMs: number;
  /** For a watch, the token with which the stream is opened again. Otherwise undefined. */
  readonly resumeToken: string | undefined;
}

/** Options of every call. */
export interface CommonOptions {
  /** Cancels the call, which then throws a `GatewayError` with `Code.Canceled`. */
  signal?: AbortSignal | undefined;
  /** Is called before each repeated attempt. */
  onRetry?: ((attempt: FailedAttempt) => void) | undefined;
}

/** Options of a unary call. */
export interface RetryOptions extends CommonOptions {
  /** The deadline of one attempt in milliseconds. Default: 90 s, which is longer than the gateway waits for ThingSpace. */
  attemptTimeoutMs?: number | undefined;
  /** The time limit of the whole call in milliseconds. Default: 10 minutes. */
  totalTimeoutMs?: number | undefined;
}

/** The options of one attempt. Pass them to the stub. */
export interface AttemptOptions {
  signal?: AbortSignal;
  timeoutMs?: number;
  contextValues: ContextValues;
}

/**
 * Decides whether to repeat a call after an error: "OK, executed = NO, otherwise repeat".
 *
 * After `executed` = NO, ThingSpace has executed nothing, and `retry` decides. After any other error of a change the
 * outcome is open, so the call is repeated whatever `retry` says. That includes errors of proxies and of the gRPC
 * library, which have neither. For calls that change nothing, `retry` decides.
 */
export function mustRepeat(error: Pick<GatewayError, "retry" | "executed">, isChange: boolean): boolean {
  if (isChange && error.executed !== Executed.NO) return true;
  return error.retry !== Retry.NEVER;
}

const FIRST_DELAY_MS = 100;
const LAST_DELAY_MS = 10_000;

/** Returns the delay after this number of earlier failures: from 0.1 s to 10 s, doubled with each failure, with jitter. */
export function backoffMs(failures: number, random = Math.random): number {
  const longest = Math.min(LAST_DELAY_MS, 2 * FIRST_DELAY_MS * 2 ** Math.min(failures, 10));
  return (longest / 2) * (1 + random());
}

/** The failures of one call or watch, which decide about the next attempt. */
export class Failures {
  #number = 0;
  #withoutSuccess = 0;
  #wasUnauthenticated = false;

  constructor(
    private readonly isChange: boolean,
    private readonly onRetry: CommonOptions["onRetry"],
  ) {}

  /** Records that the connection works: the next delay is short again. */
  reset(): void {
    this.#withoutSuccess = 0;
    this.#wasUnauthenticated = false;
  }

  /**
   * Records a failure. Returns the delay before the next attempt in milliseconds, or undefined if the error is final.
   *
   * A refused token is final, unless a function can renew it: then the first refusal leads to an immediate attempt.
   */
  delayAfter(error: GatewayError, contextValues: ContextValues): number | undefined {
    this.#number++;
    if (error.code === Code.Unauthenticated) {
      const repeat = contextValues.get(tokenIsRenewable) && !this.#wasUnauthenticated;
      this.#wasUnauthenticated = true;
      return repeat ? 0 : undefined;
    }
    this.#wasUnauthenticated = false;
    // Only an operator can change a missing permission.
    if (error.reason === Reason.PERMISSION_DENIED) return undefined;
    if (!mustRepeat(error, this.isChange)) return undefined;
    return error.retryAfterMs ?? backoffMs(this.#withoutSuccess++);
  }

  /** Reports the last failure, and waits before the next attempt. */
  async wait(error: GatewayError, delayMs: number, signal?: AbortSignal, resumeToken?: string): Promise<void> {
    this.onRetry?.({ number: this.#number, error, delayMs, resumeToken });
    await sleep(delayMs, signal);
  }
}

/** Repeats a unary call until it succeeds, the error is final, or the time limit passes. */
export async function repeat<T>(
  attempt: (options: AttemptOptions) => Promise<T>,
  isChange: boolean,
  options: RetryOptions,
): Promise<T> {
  const { signal, attemptTimeoutMs = 90_000, totalTimeoutMs = 600_000 } = options;
  const deadline = performance.now() + totalTimeoutMs;
  const failures = new Failures(isChange, options.onRetry);
  let outcomeUnknown = false;
  for (;;) {
    if (signal?.aborted) throw cancelled(signal, outcomeUnknown);
    const contextValues = createContextValues();
    const timeoutMs = timerMs(Math.min(attemptTimeoutMs, deadline - performance.now()));
    let error: GatewayError;
    try {
      return await attempt({ ...(signal && { signal }), timeoutMs, contextValues });
    } catch (reason) {
      error = GatewayError.from(reason);
    }
    if (mayHaveExecuted(error)) outcomeUnknown = isChange && error.executed !== Executed.NO;
    if (signal?.aborted) throw cancelled(signal, outcomeUnknown);
    error = error.with({ outcomeUnknown });
    const delayMs = failures.delayAfter(error, contextValues);
    if (delayMs === undefined) throw error;
    if (performance.now() + delayMs >= deadline) {
      const message = `no success within ${totalTimeoutMs / 1000} s; the last error: ${error.message}`;
      throw error.with({ outcomeUnknown, message, cause: error });
    }
    await failures.wait(error, delayMs, signal);
  }
}

/**
 * Returns false if the gateway has certainly executed nothing in the attempt, because it refused the caller, or because
 * the library did not send the attempt. Then the outcome of earlier attempts is still the outcome of the call.
 */
function mayHaveExecuted(error: GatewayError): boolean {
  if (error.reason === Reason.PERMISSION_DENIED) return false;
  return error.code !== Code.Unauthenticated && (error.executed !== Executed.NO || error.reasonText !== "");
}

/** Returns the error of a call that the program cancelled. */
export function cancelled(signal: AbortSignal, outcomeUnknown = false): GatewayError {
  const error = new ConnectError("cancelled by the program", Code.Canceled);
  return new GatewayError(error, { outcomeUnknown, cause: signal.reason });
}

/**
 * Returns a time that timers and the header `grpc-timeout` accept: a positive integer of at most 8 digits. Node.js would
 * turn a larger value into 1 ms.
 */
export function timerMs(ms: number): number {
  return Math.max(1, Math.min(Math.ceil(ms), 99_999_999));
}

/** Waits. Returns early if the signal is aborted. */
function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal?.addEventListener("abort", finish);
    if (signal?.aborted) finish();
  });
}
