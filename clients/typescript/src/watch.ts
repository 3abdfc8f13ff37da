import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import { GatewayError } from "./errors.js";
import type { WatchAccountResponse, WatchRequestResponse } from "./gen/thingspace/gateway/v1/watch_pb.js";
import { type AttemptOptions, cancelled, type CommonOptions, Failures, timerMs } from "./retry.js";

/** Options of a watch. */
export interface WatchOptions extends CommonOptions {
  /**
   * A stream without any event for this time counts as broken, in milliseconds. Only the time in which the program waits
   * for an event counts. Default: 90 s. The gateway sends a bookmark at least every 30 s by
   * default, and at most 60 s apart (its setting `grpc.bookmark_interval`).
   */
  idleTimeoutMs?: number | undefined;
  /** The time limit for opening the stream, for the first time or again, in milliseconds. Default: none. */
  reopenTimeoutMs?: number | undefined;
}

const STABLE_MS = 60_000;

/**
 * Delivers the events of a watch, each once and in order, also if the stream breaks.
 *
 * A new stream continues after the last event for which the program has asked for the next one.
 */
export async function* watchEvents<E extends WatchRequestResponse | WatchAccountResponse>(
  open: (resumeToken: string, options: AttemptOptions) => AsyncIterable<E>,
  resumeToken: string,
  options: WatchOptions,
): AsyncGenerator<E, void, undefined> {
  const { signal, idleTimeoutMs = 90_000, reopenTimeoutMs = Number.POSITIVE_INFINITY } = options;
  const failures = new Failures(false, options.onRetry);
  let wasOpened = false;
  let hasFinished = false;
  let brokenSince: number | undefined = performance.now();
  for (;;) {
    if (signal?.aborted) throw cancelled(signal);
    const openedAt = performance.now();
    const stream = new AbortController();
    const contextValues = createContextValues();
    let error: GatewayError;
    let reconnectAfterMs: number | undefined;
    try {
      const attempt = { signal: signal ? AbortSignal.any([signal, stream.signal]) : stream.signal, contextValues };
      const events = open(resumeToken, attempt)[Symbol.asyncIterator]();
      for (;;) {
        const left = brokenSince === undefined ? idleTimeoutMs : brokenSince + reopenTimeoutMs - performance.now();
        const next = await nextEvent(events, Math.min(idleTimeoutMs, left), stream);
        if (next instanceof GatewayError) {
          error = next;
          break;
        }
        if (next.done) return;
        const event = next.value;
        brokenSince = undefined;
        hasFinished ||= event.event.case === "finished";
        if (event.event.case === "reconnect") {
          reconnectAfterMs = event.event.value.retryAfter && durationMs(event.event.value.retryAfter);
          continue;
        }
        if (event.event.case !== "opened") failures.reset();
        else if (wasOpened) continue;
        wasOpened = true;
        yield event;
        // The program has asked for the next event, so it has processed this one.
        if (event.resumeToken !== "") resumeToken = event.resumeToken;
      }
    } finally {
      stream.abort();
    }
    if (signal?.aborted) throw cancelled(signal);
    // The last event. A new stream would deliver it again.
    if (hasFinished) return;
    if (performance.now() - openedAt > STABLE_MS) failures.reset();
    const delayMs = failures.delayAfter(error, contextValues);
    if (delayMs === undefined) throw error;
    brokenSince ??= performance.now();
    const delay = reconnectAfterMs ?? delayMs;
    if (performance.now() + delay >= brokenSince + reopenTimeoutMs) {
      const message = `the stream could not be opened within ${reopenTimeoutMs / 1000} s; the last error: ${error.message}`;
      throw error.with({ message, cause: error });
    }
    await failures.wait(error, delay, signal, resumeToken);
  }
}

/** Returns the next event, or the error that ended the stream. */
async function nextEvent<E>(events: AsyncIterator<E>, timeoutMs: number, stream: AbortController) {
  const onTimeout = () =>
    stream.abort(new ConnectError(`no event for ${Math.round(timeoutMs) / 1000} s`, Code.DeadlineExceeded));
  const timer = setTimeout(onTimeout, timerMs(timeoutMs));
  try {
    return await events.next();
  } catch (error) {
    return GatewayError.from(error);
  } finally {
    clearTimeout(timer);
  }
}
