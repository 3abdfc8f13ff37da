//! Settings of logs and exports.

use url::Url;

/// Settings of logs and exports.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Selects log lines, in the syntax of tracing's `EnvFilter`.
    pub log_filter: String,
    /// The collector's URL. `None`: the standard `OTEL_…` variables decide.
    pub otlp_endpoint: Option<Url>,
    /// Protocol of the export. `None`: the standard `OTEL_…` variables decide.
    pub otlp_protocol: Option<OtlpProtocol>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Text`] if standard error is a terminal, otherwise [`LogFormat::Json`].
    Auto,
    /// One JSON object a line.
    Json,
    /// Readable text.
    Text,
}

/// Protocol of the export to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with protobuf bodies.
    HttpProtobuf,
}
