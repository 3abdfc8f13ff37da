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
        Ok(is_exporting.then(|| Self {
            endpoint: settings.otlp_endpoint.clone(),
            traces,
            metrics,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    type ExportProtocols = Option<(Option<OtlpProtocol>, Option<OtlpProtocol>)>;

    fn resolve(
        endpoint: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<ExportProtocols, String> {
        let settings = TelemetryConfig {
            log_format: LogFormat::Auto,
            log_filter: "info".into(),
            otlp_endpoint: endpoint.map(|url| Url::parse(url).unwrap()),
            otlp_protocol: None,
        };
        let otlp = OtlpExport::resolve(&settings, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let otlp = otlp.map_err(|error| error.to_string())?;
        Ok(otlp.map(|otlp| (otlp.traces, otlp.metrics)))
    }

    const GRPC: Option<OtlpProtocol> = Some(OtlpProtocol::Grpc);
    const HTTP: Option<OtlpProtocol> = Some(OtlpProtocol::HttpProtobuf);

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        assert_eq!(resolve(None, &[]), Ok(None));
        assert_eq!(
            resolve(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]),
            Ok(None)
        );
        let disabled = [("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(resolve(Some("http://c:4317"), &disabled), Ok(None));
        let neither = [
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        assert_eq!(resolve(Some("http://c:4317"), &neither), Ok(None));
    }

    #[test]
    fn the_standard_variables_are_followed_signal_by_signal() {
        let traces = [(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://c:4318/v1/traces",
        )];
        assert_eq!(resolve(None, &traces), Ok(Some((HTTP, None))));
        let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        assert_eq!(
            resolve(Some("http://c:1/otlp/"), &http),
            Ok(Some((HTTP, HTTP)))
        );
        let one = [
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        assert_eq!(resolve(Some("http://c:1"), &one), Ok(Some((HTTP, GRPC))));
    }

    #[test]
    fn an_unsupported_protocol_is_an_error_and_port_4318_means_http() {
        let json = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
        let error = resolve(Some("http://c:4318"), &json).unwrap_err();
        assert!(
            error.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: expected"),
            "{error}"
        );
        assert_eq!(resolve(Some("http://c:4317"), &[]), Ok(Some((GRPC, GRPC))));
        assert_eq!(resolve(Some("http://c:4318"), &[]), Ok(Some((HTTP, HTTP))));
        assert_eq!(resolve(Some("http://c:9"), &[]), Ok(Some((GRPC, GRPC))));
    }
}
