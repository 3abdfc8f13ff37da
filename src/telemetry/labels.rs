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
        /// The callback is in the spool, because the journal is unavailable.
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
        Console = "console",
    }

    /// Reason to close a connection in favour of other clients.
    CloseReason: names::REASON {
        /// The port had no connection left, and this one was idle; or too many TLS handshakes were in progress, and
        /// that of this connection began first.
        Idle = "idle",
        /// The clients with the address, or with one like it, had their share of the connections of the port.
        AddressShare = "address_share",
        /// The client did not read its responses.
        UnreadResponses = "unread_responses",
    }

    /// Method that identifies a caller.
    AuthMethod: names::METHOD {
        /// The call has no credential, or none is needed.
        None = "none",
        /// A client certificate.
        Mtls = "mtls",
        /// A bearer token.
        Jwt = "jwt",
        /// The header of a service mesh.
        Mesh = "mesh",
    }

    /// Reason why a caller could not be identified.
    AuthFailureReason: names::REASON {
        NoCredential = "no_credential",
        /// The header with the credential cannot be read, or occurs more than once.
        MalformedHeader = "malformed_header",
        /// The token is not a JSON Web Token with valid claims, or is longer than 8 KiB.
        MalformedToken = "malformed_token",
        /// The signature algorithm is not accepted, or does not fit the key.
        Algorithm = "algorithm",
        /// The issuer has no such key.
        UnknownKey = "unknown_key",
        /// The keys of the issuer have not been read yet, or too many calls wait for them.
        KeysUnavailable = "keys_unavailable",
        BadSignature = "bad_signature",
        WrongIssuer = "wrong_issuer",
        WrongAudience = "wrong_audience",
        Expired = "expired",
        NotYetValid = "not_yet_valid",
        /// The certificate cannot be read, or breaks the rules of SPIFFE.
        MalformedCertificate = "malformed_certificate",
        /// The client CA that signed the certificate is not trusted any more.
        UntrustedCertificate = "untrusted_certificate",
        /// The credential contains no usable name.
        NoName = "no_name",
    }

    /// Outcome of a record of the audit log.
    AuditOutcome: names::OUTCOME {
        Written = "written",
        /// The record is counted in another record, because its caller was refused too often.
        Aggregated = "aggregated",
        /// The log could not be written, and the queue was full.
        Lost = "lost",
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

    /// Kind of certificate on a port.
    CertificateKind: names::KIND {
        /// The certificate of the gateway.
        Server = "server",
        /// The CA bundle for client certificates.
        ClientCa = "client_ca",
    }

    /// Reason of a failed TLS handshake.
    HandshakeFailure: names::REASON {
        /// The client did not finish the handshake in time.
        Timeout = "timeout",
        /// The client presented no certificate, and one is required.
        NoCertificate = "no_certificate",
        /// No authority of the CA bundle has signed the certificate of the client.
        UnknownCa = "unknown_ca",
        /// The certificate of the client has expired, or is not valid yet.
        ExpiredCertificate = "expired_certificate",
        /// The certificate of the client is not usable for another reason.
        BadCertificate = "bad_certificate",
        /// The client supports neither TLS 1.2 nor 1.3.
        ProtocolVersion = "protocol_version",
        /// No cipher suite, group or signature scheme is shared with the client.
        NoSharedCipher = "no_shared_cipher",
        /// The client does not speak TLS, or sent a malformed message.
        NotTls = "not_tls",
        /// The client does not offer the protocol of the port.
        Alpn = "alpn",
        /// The client closed the connection.
        Closed = "closed",
        /// The client sent an alert, for example because it does not trust the certificate of the gateway.
        ClientAlert = "client_alert",
        Other = "other",
    }

    /// State of a quarantined callback.
    QuarantineState: names::STATE {
        /// An operator has listed it.
        Reviewed = "reviewed",
        Unreviewed = "unreviewed",
    }

    /// State of a replica.
    ReplicaState: names::STATE {
        /// It holds its lease.
        Live = "live",
        /// Its lease expired, and no replica replaces it.
        Lost = "lost",
    }

    /// Error class of an HTTP request without a complete response.
    CallError: names::ERROR_TYPE {
        NotSent = "not_sent",
        NoResponse = "no_response",
        Cancelled = "cancelled",
    }
}

impl Port {
    /// The ports that can serve TLS.
    pub const WITH_TLS: [Self; 2] = [Self::Grpc, Self::Callbacks];
}

impl AuthMethod {
    /// The reasons that can occur with this method.
    pub const fn failure_reasons(self) -> &'static [AuthFailureReason] {
        use AuthFailureReason as Reason;
        match self {
            Self::None => &[Reason::NoCredential],
            Self::Mtls => &[
                Reason::MalformedCertificate,
                Reason::UntrustedCertificate,
                Reason::Expired,
                Reason::NotYetValid,
                Reason::NoName,
            ],
            Self::Jwt => &[
                Reason::MalformedHeader,
                Reason::MalformedToken,
                Reason::Algorithm,
                Reason::UnknownKey,
                Reason::KeysUnavailable,
                Reason::BadSignature,
                Reason::WrongIssuer,
                Reason::WrongAudience,
                Reason::Expired,
                Reason::NotYetValid,
                Reason::NoName,
            ],
            Self::Mesh => &[Reason::MalformedHeader, Reason::NoName],
        }
    }
}
