//! Resolves the export settings from the gateway's settings and the standard `OTEL_…` variables.

use url::Url;

use crate::{
    config::{OtlpProtocol, TelemetryConfig},
    telemetry::error::TelemetryError,
};

/// Port that collectors use for OTLP over HTTP.
const HTTP_PORT: u16 = 4318;

/// Export of traces, metrics or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtlpExport {
    /// `None`: the exporters read the standard variables, which can differ by signal.
    pub(super) endpoint: Option<Url>,
    /// Protocol of traces. `None`: traces are not exported.
    pub(super) traces: Option<OtlpProtocol>,
    /// Protocol of metrics. `None`: metrics are not exported.
    pub(super) metrics: Option<OtlpProtocol>,
}

// === impl OtlpExport ===

impl OtlpExport {
    /// Returns the export, or `None` if nothing is exported. `settings` take precedence over the
    /// standard variables, which `variable` reads.
    ///
    /// # Errors
    ///
    /// An unsupported protocol in a variable.
    pub(super) fn resolve(
        settings: &TelemetryConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TelemetryError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name: &str, value: &str| {
            variable(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value))
        };
        if is("OTEL_SDK_DISABLED", "true") {
            return Ok(None);
        }
        let protocol = |signal: &str| {
            let of_signal = |suffix: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{suffix}");
            let endpoint = settings.otlp_endpoint.as_ref().map(Url::to_string);
            let endpoint = endpoint
                .or_else(|| variable(&of_signal("ENDPOINT")))
                .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
            let Some(endpoint) = endpoint else {
                return Ok(None);
            };
            if is(&format!("OTEL_{signal}_EXPORTER"), "none") {
                return Ok(None);
            }
            if settings.otlp_protocol.is_some() {
                return Ok(settings.otlp_protocol);
            }
            for name in [of_signal("PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".into()] {
                if let Some(value) = variable(&name) {
                    return match value.trim() {
                        "grpc" => Ok(Some(OtlpProtocol::Grpc)),
                        "http/protobuf" => Ok(Some(OtlpProtocol::HttpProtobuf)),
                        _ => Err(TelemetryError::Protocol { variable: name }),
                    };
                }
            }
            let port = Url::parse(&endpoint).ok().and_then(|url| url.port());
            Ok(Some(match port {
                Some(HTTP_PORT) => OtlpProtocol::HttpProtobuf,
                _ => OtlpProtocol::Grpc,
            }))
        };
        let (traces, metrics) = (protocol("TRACES")?, protocol("METRICS")?);
        let is_exporting = traces.is_some() || metrics.is_some();
        Ok(is_exporting.then(|| Self { endpoint: settings.otlp_endpoint.clone(), traces, metrics }))
    }
}

#[cfg(test)]
mod tests;
