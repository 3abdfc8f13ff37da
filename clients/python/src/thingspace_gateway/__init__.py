"""A client of thingspace-gateway: changes that are repeated safely, and watches that resume.

`connect` returns a `Client`. `v1` contains the messages. README.md of the package has a complete
program."""

from . import v1
from ._client import CallOptions, Client, WatchOptions, connect
from ._errors import Cancelled, FieldViolation, GatewayError
from ._retry import Backoff, Cancellation, FailedAttempt, must_repeat_change, must_repeat_read
from ._version import VERSION as __version__
from ._watch import Watch

__all__ = [
    "Backoff",
    "CallOptions",
    "Cancellation",
    "Cancelled",
    "Client",
    "FailedAttempt",
    "FieldViolation",
    "GatewayError",
    "Watch",
    "WatchOptions",
    "__version__",
    "connect",
    "must_repeat_change",
    "must_repeat_read",
    "v1",
]
