//! Errors of the set-up.

/// Telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is invalid.
    #[error("telemetry.log_filter: {0}")]
    Filter(#[from] crate::config::LogFilterError),
    /// The log filter cannot be changed.
    #[error("cannot change the log filter: {0}")]
    Reload(#[from] tracing_subscriber::reload::Error),
    /// The process already has a tracing subscriber.
    #[error("telemetry is already initialised")]
    AlreadySet,
    /// An exporter cannot be built. Omits the cause: the endpoint may contain a password.
    #[error(
        "invalid OTLP endpoint (value hidden): check telemetry.otlp_endpoint and the \
         OTEL_EXPORTER_OTLP_… variables"
    )]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The OTLP protocol is not supported.
    #[error("{variable}: expected `grpc` or `http/protobuf`")]
    Protocol {
        /// The environment variable.
        variable: String,
    },
    /// The Prometheus exporter cannot be built.
    #[error("cannot initialise the Prometheus exporter: {0}")]
    Expose(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// A metric of the process cannot be registered.
    #[error("cannot register the metrics of the process: {0}")]
    Process(#[from] prometheus::Error),
}
