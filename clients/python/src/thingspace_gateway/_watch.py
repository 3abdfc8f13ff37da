"""Streams that resume."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, Generic, TypeVar

import grpc

from ._errors import Cancelled, GatewayError, _seconds
from ._retry import Backoff, Cancellation, FailedAttempt, OnRetry, must_repeat_read, report

Event = TypeVar("Event")


class Watch(Generic[Event]):
    """The events of a watch: each once, in order, also if the stream breaks.

    Iterate over it. A broken stream is opened again with the token of the last event that the program has
    processed. An event counts as processed when the program asks for the next one. To continue after a
    restart of the program, store `event.resume_token` with the effects of the event, and set
    `resume_token` of the next request.

    `event.WhichOneof("event")` names the kind of an event. It is None for a kind that this version does not
    know: ignore such an event, but store its token. The first event is `opened`. The `opened` of a resumed
    stream and `reconnect` are not delivered.

    The iteration ends when the gateway ends the stream with OK. It raises `GatewayError` if the stream
    cannot be resumed, and `Cancelled` after `cancel`. Leaving the loop, or `close`, ends the stream."""

    def __init__(self, events: Generator[Event, None, None], request: Any, cancellation: Cancellation):
        # When the generator is not referenced any more, Python closes it, which cancels the call. So it
        # must not refer to this object.
        self._events, self._request, self._cancellation = events, request, cancellation

    def __iter__(self) -> Watch[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Watch[Event]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def resume_token(self) -> str:
        """The token of the last event that the program has processed.

        Within the loop, the token of the current event is `event.resume_token`."""
        return str(self._request.resume_token)

    def cancel(self) -> None:
        """Ends the stream from any thread or a signal handler. The iteration raises `Cancelled`.

        Cancels the `Cancellation` of the watch, with all its other calls."""
        self._cancellation.cancel()

    def close(self) -> None:
        """Ends the stream. Call it in the thread that iterates."""
        self._events.close()


def stream(
    method: Any,
    request: Any,
    *,
    idle_timeout: float,
    reopen_timeout: float | None,
    has_token_function: bool,
    on_retry: OnRetry | None,
    cancellation: Cancellation,
) -> Generator[Any, None, None]:
    """Yields the events of `Watch`. `request.resume_token` is the token of the last processed event."""
    backoff, refreshed, was_opened, has_finished, number = Backoff(), False, False, False, 0
    last_event = time.monotonic()
    while True:
        retry_after, opened_at = None, time.monotonic()
        cancellation.sleep(0)
        call = method(request)
        with cancellation.cancels(call), _IdleTimer(call, idle_timeout) as timer:
            try:
                for event in timer.wait_for_each(call):
                    refreshed = False
                    last_event = time.monotonic()
                    kind = event.WhichOneof("event")
                    has_finished |= kind == "finished"
                    if kind == "reconnect":
                        retry_after = _seconds(event.reconnect.retry_after)
                    elif kind != "opened" or not was_opened:
                        was_opened = True
                        yield event
                        last_event = time.monotonic()
                    # The program has asked for the next event, so it has processed this one.
                    if event.resume_token:
                        request.resume_token = event.resume_token
                    if kind not in ("opened", "reconnect"):
                        backoff.reset()
                return
            except grpc.RpcError as error:
                failure = GatewayError.from_rpc_error(error)
            except GatewayError as error:
                failure = error
        if cancellation.is_cancelled:
            raise Cancelled
        if has_finished:
            # The last event. A new stream would deliver it again.
            return
        if timer.expired:
            failure = GatewayError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no event for {idle_timeout:g} s")
        number += 1
        if failure.code == grpc.StatusCode.UNAUTHENTICATED:
            may_repeat, delay = has_token_function and not refreshed, 0.0
            refreshed = True
        else:
            if time.monotonic() - opened_at > 60:
                backoff.reset()
            delay = backoff.next(failure.retry_after if retry_after is None else retry_after)
            may_repeat = must_repeat_read(failure)
        if reopen_timeout is not None and time.monotonic() + delay > last_event + reopen_timeout:
            may_repeat = False
        if not may_repeat:
            raise failure
        report(FailedAttempt(number, failure, delay, request.resume_token), on_retry)
        cancellation.sleep(delay)


class _IdleTimer:
    """Cancels a stream if the program waits for its next event longer than the limit."""

    def __init__(self, call: Any, limit: float):
        self._call, self._limit = call, limit
        self._waiting_since: float | None = None
        self._stopped = threading.Event()
        self.expired = False

    def __enter__(self) -> _IdleTimer:
        threading.Thread(target=self._run, name="thingspace-gateway-idle-timer", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def wait_for_each(self, call: Any) -> Iterator[Any]:
        while True:
            self._waiting_since = time.monotonic()
            event = next(call, None)
            self._waiting_since = None
            if event is None:
                return
            yield event

    def _run(self) -> None:
        wait = self._limit
        while not self._stopped.wait(wait):
            since = self._waiting_since
            wait = self._limit if since is None else self._limit - (time.monotonic() - since)
            if wait <= 0:
                self.expired = True
                self._call.cancel()
                return
