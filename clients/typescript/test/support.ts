import { type Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";

/** Returns an error with the details that the gateway sends. */
export function gatewayError(
  code: Code,
  reason: string,
  metadata: Record<string, string>,
  retryAfterMs?: number,
  domain = "thingspace.gateway",
): ConnectError {
  const error = new ConnectError(`the gateway says ${reason}`, code);
  error.details = [{ desc: ErrorInfoSchema, value: { reason, domain, metadata } }];
  if (retryAfterMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1e6 };
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay } });
  }
  return error;
}
