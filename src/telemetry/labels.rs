//! Values of metric labels: one enum for each closed set. `docs/telemetry.md` explains all values.

use opentelemetry::KeyValue;

use crate::telemetry::names;

/// Defines enums whose variants are the values of one label.
macro_rules! labels {
    ($(
        $(#[$doc:meta])*
        $name:ident: $key:path { $( $(#[$value_doc:meta])* $variant:ident = $value:literal, )+ }
    )+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$value_doc])* #[doc = concat!("`", $value, "`")] $variant, )+
        }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$($value),+].len()] = [$(Self::$variant),+];

            /// The value as metrics and logs show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }

        impl From<$name> for KeyValue {
            fn from(value: $name) -> Self {
                Self::new($key, value.name())
            }
        }
    )+};
}

labels! {
    /// Outcome of a callback.
    CallbackOutcome: names::OUTCOME {
        Stored = "stored",
        Duplicate = "duplicate",
        /// The callback is in the spool, because the journal is away.
        Spooled = "spooled",
        /// The callback cannot be used and is in the quarantine.
        Quarantined = "quarantined",
        Rejected = "rejected",
    }

    /// Reason to reject or quarantine a callback.
    RejectionReason: names::REASON {
        /// No route has this path, or a path segment is too long.
        NotFound = "not_found",
        WrongPathSecret = "wrong_path_secret",
        MethodNotAllowed = "method_not_allowed",
        /// The source address is outside `callbacks.allow_cidrs`, which is enforced.
        Forbidden = "forbidden",
        /// Neither path secret nor password, or a wrong password.
        Unauthorized = "unauthorized",
        /// This gateway has forwarded the callback to itself.
        ForwardLoop = "forward_loop",
        /// Not a JSON object with a usable `requestId`.
        Malformed = "malformed",
        TooLarge = "too_large",
        IncompleteBody = "incomplete_body",
        /// The journal's queue is too long to store the callback in time.
        Overloaded = "overloaded",
        /// The journal did not confirm in time. The callback may still be stored.
        StoreTimeout = "store_timeout",
        Unavailable = "unavailable",
        QuarantineFull = "quarantine_full",
    }

    /// State of the registration of one callback service.
    RegistrationState: names::STATE {
        Unknown = "unknown",
        /// The gateway's URL is registered with the expected credentials.
        Registered = "registered",
        /// The gateway's URL is registered with other credentials, or without.
        WrongCredentials = "wrong_credentials",
        OtherUrl = "other_url",
        Missing = "missing",
    }

    /// Outcome of an attempt to register the callback URL.
    RegistrationOutcome: names::OUTCOME {
        /// Registered; no other URL was registered before.
        Registered = "registered",
        /// Registered in place of another URL.
        Replaced = "replaced",
        Failed = "failed",
    }

    /// Outcome of a delivery to the webhook.
    DeliveryOutcome: names::OUTCOME {
        Delivered = "delivered",
        /// An attempt failed; the gateway retries.
        Failed = "failed",
        Dropped = "dropped",
    }

    /// Reason to drop a callback before its delivery to the webhook.
    DropReason: names::REASON {
        QueueFull = "queue_full",
        Expired = "expired",
        BodyRemoved = "body_removed",
        /// `callbacks.forward_url` needs a service name, and the callback has none.
        NoServiceName = "no_service_name",
        /// `callbacks.forward_url` leads back to this gateway.
        Loop = "loop",
    }

    /// Outcome of a change of the policy file.
    PolicyReloadOutcome: names::OUTCOME {
        Applied = "applied",
        /// The file has errors or cannot be read. The last valid policy stays in force.
        Rejected = "rejected",
    }

    /// Port of the gateway.
    Port: names::PORT {
        Grpc = "grpc",
        Callbacks = "callbacks",
        Admin = "admin",
    }

    /// Reason to close a connection in favour of other clients.
    CloseReason: names::REASON {
        /// The port had no connection left, and this one was idle.
        Idle = "idle",
        /// The address had its share of the connections of the port.
        AddressShare = "address_share",
        /// The client did not read its responses.
        UnreadResponses = "unread_responses",
    }

    /// Kind of write to the journal.
    JournalOperation: names::OPERATION {
        /// A new change with its devices, or the lookup of its idempotency key.
        Claim = "claim",
        Transition = "transition",
        /// A callback, or the result of a lookup.
        Callback = "callback",
        Attribute = "attribute",
        /// The device of a result, found by a lookup.
        ResolveDevice = "resolve_device",
        /// A quarantined callback added, listed, replayed or deleted.
        Quarantine = "quarantine",
        /// Delivery attempts recorded, rescheduled or expired.
        Forward = "forward",
        Kv = "kv",
        Retention = "retention",
    }

    /// Error class of an HTTP request without a complete response.
    CallError: names::ERROR_TYPE {
        NotSent = "not_sent",
        NoResponse = "no_response",
        Cancelled = "cancelled",
    }
}
