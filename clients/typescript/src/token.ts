import { Code, createContextKey, type Interceptor } from "@connectrpc/connect";
import { notSent } from "./errors.js";

/** A bearer token, or a function that returns one. The function is called for each attempt, so it can renew the token. */
export type Token = string | (() => string | Promise<string>);

/** The interceptor sets this value of a call if its token comes from a function. A repeated call then has a new token. */
export const tokenIsRenewable = createContextKey(false);

/**
 * An interceptor that sends a bearer token with each call. `connect` installs it. Use it for transports of your own.
 *
 * It refuses to send a token to an `http:` URL unless `allowTokenOverPlaintext` is true.
 */
export function bearerToken(token: Token, options: { allowTokenOverPlaintext?: boolean } = {}): Interceptor {
  return (next) => async (request) => {
    if (!options.allowTokenOverPlaintext && new URL(request.url).protocol !== "https:") {
      throw tokenOverPlaintext();
    }
    request.contextValues.set(tokenIsRenewable, typeof token === "function");
    const value = typeof token === "function" ? await settle(token, request.signal) : token;
    request.header.set("authorization", `Bearer ${value}`);
    return next(request);
  };
}

/** The error for a token that would be sent without TLS. */
export function tokenOverPlaintext() {
  return notSent("a token is not sent over plaintext, unless allowTokenOverPlaintext is set", Code.InvalidArgument, "NEVER");
}

/** Calls the function, and waits for its result until the signal is aborted. */
async function settle(token: () => string | Promise<string>, signal: AbortSignal): Promise<string> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([token(), aborted]);
  } catch (error) {
    if (signal.aborted) throw error;
    throw notSent(`the token function failed: ${error}`, Code.Unavailable, "NOW", error);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
