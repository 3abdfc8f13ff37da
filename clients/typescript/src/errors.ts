import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { Executed, Reason, Retry } from "./gen/thingspace/gateway/v1/error_pb.js";

const DOMAIN = "thingspace.gateway";

/** An invalid field of a request. */
export interface FieldViolation {
  /** The path of the field, such as `devices[17].iccid`. */
  readonly field: string;
  /** The name of a value of `FieldReason`, such as `FORMAT`. */
  readonly reason: string;
  /** A text for people. */
  readonly description: string;
}

interface GatewayErrorOptions {
  message?: string;
  outcomeUnknown?: boolean;
  cause?: unknown;
}

/**
 * A call failed, and the library does not repeat it.
 *
 * Branch on `reason`, or on `retry` and `executed`. `cause` is the `ConnectError` of the last attempt, or the last error
 * if a time limit has passed.
 */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** The status code. `Code.Canceled` does not prove that your program cancelled the call: check your `AbortSignal`. */
  readonly code: Code;
  /**
   * The cause of the error. `Reason.UNSPECIFIED` if this version of the library does not know the reason, or if the
   * gateway did not send the error.
   */
  readonly reason: Reason;
  /** The name of the reason, such as `DEVICE_BUSY`, also if it is not known. Empty if the gateway did not send the error. */
  readonly reasonText: string;
  /** Whether the same call can succeed later. `Retry.UNSPECIFIED` if the gateway did not send the error. */
  readonly retry: Retry;
  /** Whether ThingSpace may have executed the content of this attempt. After a change, read `outcomeUnknown`. */
  readonly executed: Executed;
  /** The delay before the next attempt in milliseconds, if the error contains one. */
  readonly retryAfterMs: number | undefined;
  /** The invalid fields, if the reason is `Reason.FIELD_INVALID`. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The metadata of `google.rpc.ErrorInfo`, such as `change_id`. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * True if ThingSpace may have executed the change, or may still execute it. To find out, repeat the change with the
   * same key, or call `getChange` with the key. Always false for calls that change nothing.
   */
  readonly outcomeUnknown: boolean;

  readonly #error: ConnectError;

  /** @internal */
  constructor(error: ConnectError, options: GatewayErrorOptions = {}) {
    super(options.message ?? error.rawMessage, { cause: options.cause ?? error });
    this.#error = error;
    const info = error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === DOMAIN);
    const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.code = error.code;
    this.reason = valueOf(Reason, info?.reason);
    this.reasonText = info?.reason ?? "";
    this.retry = valueOf(Retry, info?.metadata["retry"]);
    this.executed = valueOf(Executed, info?.metadata["executed"]);
    this.retryAfterMs = delay && Math.max(0, durationMs(delay));
    this.fieldViolations = (error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? []).map(
      ({ field, reason, description }) => ({ field, reason, description }),
    );
    this.metadata = info?.metadata ?? {};
    this.outcomeUnknown = options.outcomeUnknown ?? false;
  }

  /** Reads the details of an error of Connect, such as one that a stub throws. */
  static from(error: unknown): GatewayError {
    return error instanceof GatewayError ? error : new GatewayError(ConnectError.from(error));
  }

  /** @internal */
  with(options: GatewayErrorOptions): GatewayError {
    return new GatewayError(this.#error, options);
  }
}

/** Returns an error for an attempt that the library did not send. */
export function notSent(message: string, code: Code, retry: "NOW" | "NEVER", cause?: unknown): ConnectError {
  const info = { domain: DOMAIN, metadata: { retry, executed: "NO" } };
  return new ConnectError(message, code, undefined, [{ desc: ErrorInfoSchema, value: info }], cause);
}

/** Returns the value of an enum with this name, or 0 (`UNSPECIFIED`) if there is none. */
function valueOf<T extends number>(values: Record<string, T | string>, name = ""): T {
  const value = Object.hasOwn(values, name) ? values[name] : undefined;
  return (typeof value === "number" ? value : 0) as T;
}
