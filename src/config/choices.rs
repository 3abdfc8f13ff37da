//! Settings with a fixed set of values.

use thingspace_settings::choices;

choices! {
    /// Treatment of a callback from an address outside `callbacks.allow_cidrs`.
    AllowMode {
        /// Accepts the callback if its path secret or credentials are correct, and reports it.
        Report = "report",
        /// Rejects the callback.
        Enforce = "enforce",
    }

    /// Registration of the gateway's callback URL.
    RegisterPolicy {
        /// Only reports registrations that differ.
        Never = "never",
        /// Registers the URL where none is registered.
        IfUnclaimed = "if_unclaimed",
        /// Also replaces another URL.
        Replace = "replace",
    }

    /// HTTP method of the 5G BI plan change. Verizon's documentation contradicts itself about it.
    FiveGBiHttpMethod {
        /// `POST`.
        Post = "POST",
        /// `PUT`, as Verizon's SDKs send it.
        Put = "PUT",
    }

    /// Storage engine of the journal.
    JournalEngine {
        /// SQLite in one directory, for one replica.
        Sqlite = "sqlite",
    }

    /// Authentication of clients.
    AuthMode {
        /// Accepts every client that can reach the port.
        None = "none",
    }

    /// Format of the log.
    LogFormat {
        /// [`LogFormat::Text`] if standard error is a terminal, otherwise [`LogFormat::Json`].
        Auto = "auto",
        /// One JSON object per line.
        Json = "json",
        /// Human-readable lines.
        Text = "text",
    }

    /// Protocol of the OpenTelemetry collector.
    OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, with protobuf bodies.
        HttpProtobuf = "http/protobuf",
    }

    /// Order in which the sandbox sends the callbacks of a request.
    CallbackOrder {
        /// The order of the devices in the request.
        AsSent = "as_sent",
        /// The reverse order.
        Reversed = "reversed",
        /// A random order that depends on the seed.
        Shuffled = "shuffled",
    }

    /// Retries of a callback that the sandbox could not deliver.
    ResendPolicy {
        /// Three retries, one second apart.
        Quick = "quick",
        /// One retry after 1.3 s, as measured on ThingSpace.
        Measured = "measured",
        /// Three retries, five minutes apart.
        Documented = "documented",
    }
}
