"""The rules for repeated calls."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from thingspace.gateway.v1 import error_pb2

from ._errors import Cancelled, GatewayError, TokenFunctionError

logger = logging.getLogger("thingspace_gateway")


def must_repeat_change(error: GatewayError, validate_only: bool = False) -> bool:
    """Returns True if a failed change call must be repeated with the same key: "OK, executed = NO,
    otherwise repeat".

    After `executed` = NO, ThingSpace has executed nothing, and `retry` decides. After any other error
    the outcome is open, so the call is repeated whatever `retry` says. That includes errors of proxies
    and of gRPC. A call with `validate_only` executes nothing, so `retry` decides."""
    if validate_only or error.executed == error_pb2.EXECUTED_NO:
        return must_repeat_read(error)
    return True


def must_repeat_read(error: GatewayError) -> bool:
    """Returns True if a failed call that changes nothing must be repeated, or a stream opened again."""
    return error.retry != error_pb2.RETRY_NEVER


class Backoff:
    """The delays between attempts: 0.1 s, doubled with each failure up to 10 s, with jitter."""

    FIRST, LAST = 0.1, 10.0

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, retry_after: float | None = None) -> float:
        """Returns the next delay in seconds, which is `retry_after` if the error has one."""
        longest = min(self.LAST, self.FIRST * 2 ** min(self._failures, 10))
        self._failures += 1
        return random.uniform(longest / 2, longest) if retry_after is None else retry_after


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt that failed and that the library repeats."""

    #: The number of failed attempts of this call or watch, from 1 on.
    number: int
    #: The error.
    error: GatewayError
    #: The delay in seconds before the next attempt.
    delay: float
    #: For a watch, the token with which the stream is opened again.
    resume_token: str = ""


OnRetry = Callable[[FailedAttempt], None]


def report(attempt: FailedAttempt, on_retry: OnRetry | None) -> None:
    logger.info("repeating the call in %.1f s after attempt %d: %s", attempt.delay, attempt.number, attempt.error)
    if on_retry:
        on_retry(attempt)


class Cancellation:
    """Cancels the calls that it is passed to.

    `cancel` can be called from any thread and from a signal handler. The calls raise `Cancelled`."""

    def __init__(self) -> None:
        self._is_cancelled = False
        self._calls: set[Any] = set()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def cancel(self) -> None:
        self._is_cancelled = True
        for call in list(self._calls):
            call.cancel()

    @contextmanager
    def cancels(self, call: Any) -> Iterator[None]:
        """Cancels this call of gRPC when `cancel` is called, and in any case at the end of the block."""
        self._calls.add(call)
        try:
            if self._is_cancelled:
                call.cancel()
            yield
        finally:
            self._calls.discard(call)
            call.cancel()

    def sleep(self, seconds: float) -> None:
        """Waits for this time. Raises `Cancelled` if `cancel` is called."""
        # Waiting for a lock would not be safe in a signal handler, so this polls.
        deadline = time.monotonic() + seconds
        while not self._is_cancelled and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        if self._is_cancelled:
            raise Cancelled


@dataclass
class Unary:
    """A unary call that is repeated until it succeeds, cannot succeed, or its time limit passes."""

    method: Any
    request: Any
    must_repeat: Callable[[GatewayError], bool]
    #: True if an attempt can change something.
    changes: bool
    attempt_timeout: float
    total_timeout: float
    has_token_function: bool
    on_retry: OnRetry | None
    cancellation: Cancellation

    def run(self) -> Any:
        deadline = time.monotonic() + self.total_timeout
        backoff, refreshed, outcome_unknown, number = Backoff(), False, False, 0
        while True:
            try:
                self.cancellation.sleep(0)
                return self._attempt(min(self.attempt_timeout, deadline - time.monotonic()))
            except Cancelled as error:
                error.outcome_unknown |= outcome_unknown
                raise
            except GatewayError as error:
                number += 1
                failure = error
            if failure.code == grpc.StatusCode.UNAUTHENTICATED:
                # The gateway executed nothing in this attempt. An earlier attempt remains as it was.
                may_repeat, delay = self.has_token_function and not refreshed, 0.0
                refreshed = True
            elif failure.reason == error_pb2.REASON_PERMISSION_DENIED:
                # The same holds here, and only an operator can change it.
                may_repeat, delay = False, 0.0
            else:
                if not isinstance(failure, TokenFunctionError):
                    outcome_unknown = self.changes and failure.executed != error_pb2.EXECUTED_NO
                may_repeat, delay = self.must_repeat(failure), backoff.next(failure.retry_after)
                refreshed = False
            failure.outcome_unknown = outcome_unknown
            if not may_repeat:
                raise failure
            if time.monotonic() + delay >= deadline:
                message = f"no success within {self.total_timeout:g} s; the last error: {failure.message}"
                raise _with_message(failure, message) from failure
            report(FailedAttempt(number, failure, delay), self.on_retry)
            try:
                self.cancellation.sleep(delay)
            except Cancelled as error:
                error.outcome_unknown = outcome_unknown
                raise

    def _attempt(self, timeout: float) -> Any:
        call = self.method.future(self.request, timeout=max(timeout, 0.001))
        with self.cancellation.cancels(call):
            try:
                return call.result()
            except grpc.FutureCancelledError:
                raise Cancelled(outcome_unknown=self.changes) from None
            except grpc.RpcError as error:
                raise GatewayError.from_rpc_error(error) from error


def _with_message(error: GatewayError, message: str) -> GatewayError:
    return GatewayError(
        error.code,
        message,
        reason_text=error.reason_text,
        metadata=error.metadata,
        retry_after=error.retry_after,
        field_violations=error.field_violations,
        outcome_unknown=error.outcome_unknown,
    )
