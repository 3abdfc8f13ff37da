"""The connection to a gateway."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

import grpc

from . import v1
from ._errors import GatewayError, TokenFunctionError
from ._retry import Cancellation, OnRetry, Unary, must_repeat_change, must_repeat_read
from ._version import VERSION
from ._watch import Watch, stream

#: The content of a PEM file as bytes, or its path.
Pem = bytes | str | PathLike[str]


def connect(
    target: str,
    *,
    plaintext: bool = False,
    ca: Pem | None = None,
    certificate: Pem | None = None,
    key: Pem | None = None,
    token: str | Callable[[], str] | None = None,
    allow_token_over_plaintext: bool = False,
    keepalive: float = 30,
    options: Sequence[tuple[str, Any]] = (),
) -> Client:
    """Returns a client of the gateway at this address. The first call opens the connection.

    The connection uses TLS with the roots of gRPC, or with the certificate authorities in `ca`.
    `certificate` and `key` identify the client. `plaintext=True` turns TLS off.

    `token` is a bearer token, or a function that returns one. The library calls the function for each
    attempt, so that it can return a renewed token. The function can be called from several threads. If
    the function fails, the attempt is not sent: it fails with UNAVAILABLE, and is repeated. A token is
    sent over plaintext only with `allow_token_over_plaintext`.

    `keepalive` is the number of seconds after which a silent connection is checked. `options` are
    further arguments of the gRPC channel."""
    if plaintext and (ca or certificate or key):
        raise ValueError("plaintext=True excludes ca, certificate and key")
    if bool(certificate) != bool(key):
        raise ValueError("certificate and key are needed together")
    if plaintext and token is not None and not allow_token_over_plaintext:
        raise ValueError("a token over plaintext needs allow_token_over_plaintext=True")
    options = [
        ("grpc.primary_user_agent", f"thingspace-gateway-client/{VERSION}"),
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        # grpcio closes a silent connection after the longer one of these, and the second is 60 s by default.
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Without these, gRPC waits up to two minutes before it connects again.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        # This library repeats calls. gRPC itself must not.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        *options,
    ]
    if plaintext:
        channel = grpc.insecure_channel(target, options)
    else:
        credentials = grpc.ssl_channel_credentials(_pem(ca), _pem(key), _pem(certificate))
        channel = grpc.secure_channel(target, credentials, options)
    return Client(channel, token)


class CallOptions(TypedDict, total=False):
    """Options of a unary call."""

    #: The deadline of one attempt in seconds, 90 by default. It must be longer than
    #: `thingspace.request_timeout` of the gateway.
    attempt_timeout: float
    #: The time limit of all attempts together in seconds, 600 by default. After the limit, the call raises
    #: the last error.
    total_timeout: float
    #: A function that is called before each repeated attempt.
    on_retry: OnRetry | None
    #: Cancels the call.
    cancellation: Cancellation | None


class WatchOptions(TypedDict, total=False):
    """Options of a watch."""

    #: The stream counts as broken after this time without an event in seconds, 90 by default. The gateway
    #: sends an event at least every 30 s by default (its setting `grpc.bookmark_interval`, at most 60 s).
    idle_timeout: float
    #: The watch raises the last error if no event has arrived for this time in seconds. By default, there is
    #: no limit.
    reopen_timeout: float | None
    #: A function that is called before the stream is opened again.
    on_retry: OnRetry | None
    #: Cancels the watch.
    cancellation: Cancellation | None


class Client:
    """Calls the gateway. The methods can be used from several threads.

    `connect` makes a client. A program that needs another kind of channel can pass its own one.

    Unary calls accept the `CallOptions` as keyword arguments, and watches the `WatchOptions`."""

    def __init__(self, channel: grpc.Channel, token: str | Callable[[], str] | None = None):
        self._channel = channel
        self._has_token_function = callable(token)
        if token is not None:
            get_token = token if callable(token) else lambda: token
            channel = grpc.intercept_channel(channel, _AddToken(get_token))
        #: The stub of `GatewayService`. It adds the token, but repeats nothing.
        self.gateway = v1.GatewayServiceStub(channel)
        #: The stub of `OperatorService`. It adds the token, but repeats nothing.
        self.operator = v1.OperatorServiceStub(channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. This ends all calls and watches."""
        self._channel.close()

    def change_esim_plan(self, request: v1.ChangeEsimPlanRequest, **options: Unpack[CallOptions]) -> v1.ChangeEsimPlanResponse:
        """Changes the service plan of eSIM profiles.

        Repeats the call with the same idempotency key until the gateway has stored the change or has
        certainly not executed it. OK does not mean that ThingSpace has executed the change: watch it.

        Raises `GatewayError`. If `GatewayError.outcome_unknown` is true, ThingSpace may still execute the
        change. Raises `ValueError` if the request has no idempotency key, because it could not be repeated."""
        return self._change(self.gateway.ChangeEsimPlan, request, **options)

    def change_five_g_bi_plan(
        self, request: v1.ChangeFiveGBiPlanRequest, **options: Unpack[CallOptions]
    ) -> v1.ChangeFiveGBiPlanResponse:
        """Changes the service plan of 5G Business Internet devices. See `change_esim_plan`."""
        return self._change(self.gateway.ChangeFiveGBiPlan, request, **options)

    def change_service_plan(
        self, request: v1.ChangeServicePlanRequest, **options: Unpack[CallOptions]
    ) -> v1.ChangeServicePlanResponse:
        """Changes the service plan of other devices. See `change_esim_plan`."""
        return self._change(self.gateway.ChangeServicePlan, request, **options)

    def watch(self, request: v1.WatchRequestRequest, **options: Unpack[WatchOptions]) -> Watch[v1.WatchRequestResponse]:
        """Watches one change or request. See `Watch`."""
        return self._watch(self.gateway.WatchRequest, request, **options)

    def watch_account(self, request: v1.WatchAccountRequest, **options: Unpack[WatchOptions]) -> Watch[v1.WatchAccountResponse]:
        """Watches all changes of an account. See `Watch`."""
        return self._watch(self.gateway.WatchAccount, request, **options)

    def get_change(self, request: v1.GetChangeRequest, **options: Unpack[CallOptions]) -> v1.GetChangeResponse:
        """Returns one change."""
        return self.call(self.gateway.GetChange, request, **options)

    def list_changes(self, request: v1.ListChangesRequest, **options: Unpack[CallOptions]) -> Iterator[v1.Change]:
        """Yields the changes of all pages, newest first."""
        return self._list(self.gateway.ListChanges, request, "changes", options)

    def list_devices(self, request: v1.ListDevicesRequest, **options: Unpack[CallOptions]) -> Iterator[v1.Device]:
        """Yields the devices of all pages."""
        return self._list(self.gateway.ListDevices, request, "devices", options)

    def list_device_results(
        self, request: v1.ListDeviceResultsRequest, **options: Unpack[CallOptions]
    ) -> Iterator[v1.DeviceResult]:
        """Yields the results of all pages, oldest first."""
        return self._list(self.gateway.ListDeviceResults, request, "device_results", options)

    def list_service_plans(self, request: v1.ListServicePlansRequest, **options: Unpack[CallOptions]) -> v1.ListServicePlansResponse:
        """Returns the service plans of an account."""
        return self.call(self.gateway.ListServicePlans, request, **options)

    def get_server_info(self, **options: Unpack[CallOptions]) -> v1.GetServerInfoResponse:
        """Returns the version of the gateway, and the properties of its journal."""
        return self.call(self.gateway.GetServerInfo, v1.GetServerInfoRequest(), **options)

    def call(self, method: Any, request: Any, **options: Unpack[CallOptions]) -> Any:
        """Calls a method of a stub that changes nothing, and repeats the call unless `retry` is NEVER."""
        return self._run(method, request, must_repeat_read, False, **options)

    def _change(self, method: Any, request: Any, **options: Unpack[CallOptions]) -> Any:
        if not request.idempotency_key:
            raise ValueError("a change without an idempotency_key cannot be repeated")

        def must_repeat(error: GatewayError) -> bool:
            return must_repeat_change(error, request.validate_only)

        return self._run(method, request, must_repeat, not request.validate_only, **options)

    def _run(
        self,
        method: Any,
        request: Any,
        must_repeat: Callable[[GatewayError], bool],
        changes: bool,
        attempt_timeout: float = 90,
        total_timeout: float = 600,
        on_retry: OnRetry | None = None,
        cancellation: Cancellation | None = None,
    ) -> Any:
        return Unary(
            method=method,
            request=request,
            must_repeat=must_repeat,
            changes=changes,
            attempt_timeout=attempt_timeout,
            total_timeout=total_timeout,
            has_token_function=self._has_token_function,
            on_retry=on_retry,
            cancellation=cancellation or Cancellation(),
        ).run()

    def _watch(
        self,
        method: Any,
        request: Any,
        idle_timeout: float = 90,
        reopen_timeout: float | None = None,
        on_retry: OnRetry | None = None,
        cancellation: Cancellation | None = None,
    ) -> Watch[Any]:
        own, cancellation = type(request)(), cancellation or Cancellation()
        own.CopyFrom(request)
        events = stream(
            method,
            own,
            idle_timeout=idle_timeout,
            reopen_timeout=reopen_timeout,
            has_token_function=self._has_token_function,
            on_retry=on_retry,
            cancellation=cancellation,
        )
        return Watch(events, own, cancellation)

    def _list(self, method: Any, request: Any, items: str, options: CallOptions) -> Iterator[Any]:
        own = type(request)()
        own.CopyFrom(request)
        while True:
            page = self.call(method, own, **options)
            yield from getattr(page, items)
            if not page.next_page_token:
                return
            own.page_token = page.next_page_token


class _CallDetails(
    namedtuple("_CallDetails", "method timeout metadata credentials wait_for_ready compression"),
    grpc.ClientCallDetails,
):
    pass


class _AddToken(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the token to each call."""

    def __init__(self, get_token: Callable[[], str]):
        self._get_token = get_token

    def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]
        return continuation(self._add(details), request)

    intercept_unary_stream = intercept_unary_unary

    def _add(self, details: Any) -> _CallDetails:
        try:
            token = self._get_token()
        except Exception as error:
            message = f"the token function failed: {type(error).__name__}: {error}"
            raise TokenFunctionError(grpc.StatusCode.UNAVAILABLE, message) from error
        return _CallDetails(
            details.method,
            details.timeout,
            [*(details.metadata or ()), ("authorization", f"Bearer {token.strip()}")],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _pem(source: Pem | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
