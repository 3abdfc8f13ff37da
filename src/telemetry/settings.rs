//! What the settings and the standard `OTEL_…` variables say together.

use url::Url;

use super::logging::LogFormat;

/// How the program tells about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written, in the syntax of tracing's `EnvFilter`.
    pub log_filter: String,
    /// Where spans and metrics go; `None` leaves it to the standard variables.
    pub otlp_endpoint: Option<Url>,
    /// How; `None` leaves it to the standard variables.
    pub otlp_protocol: Option<OtlpProtocol>,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with protobuf bodies.
    HttpProtobuf,
}

/// The way to a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Otlp {
    /// `None` when the exporter is to read it from the standard variables, which may differ by
    /// signal.
    pub(super) endpoint: Option<Url>,
    pub(super) protocol: OtlpProtocol,
    pub(super) traces: bool,
    pub(super) metrics: bool,
}

// === impl Otlp ===

impl Otlp {
    /// The way, if there is to be one. Settings of ours stand over the standard variables, which
    /// `variable` looks up.
    pub(super) fn of(
        settings: &Settings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name: &str, value: &str| {
            variable(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value))
        };
        if is("OTEL_SDK_DISABLED", "true") {
            return None;
        }
        let general = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        let wanted = |signal: &str| {
            let endpoint = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
            let somewhere = settings.otlp_endpoint.is_some()
                || general.is_some()
                || variable(&endpoint).is_some();
            somewhere && !is(&format!("OTEL_{signal}_EXPORTER"), "none")
        };
        let (traces, metrics) = (wanted("TRACES"), wanted("METRICS"));
        if !traces && !metrics {
            return None;
        }
        let said = variable("OTEL_EXPORTER_OTLP_PROTOCOL");
        let of_port = || {
            let url = settings.otlp_endpoint.clone();
            url.or_else(|| Url::parse(general.as_deref()?).ok())
                .filter(|url| url.port() == Some(4318))
                .map(|_| OtlpProtocol::HttpProtobuf)
        };
        let protocol = settings
            .otlp_protocol
            .or_else(|| said.as_deref().and_then(OtlpProtocol::read))
            .or_else(of_port)
            .unwrap_or(OtlpProtocol::Grpc);
        Some(Self {
            endpoint: settings.otlp_endpoint.clone(),
            protocol,
            traces,
            metrics,
        })
    }

    /// The URL of a signal over HTTP.
    pub(super) fn signal(&self, path: &str) -> Option<String> {
        let base = self.endpoint.as_ref()?.as_str().trim_end_matches('/');
        Some(format!("{base}/{path}"))
    }
}

// === impl OtlpProtocol ===

impl OtlpProtocol {
    /// The words of `OTEL_EXPORTER_OTLP_PROTOCOL`; JSON is not spoken.
    fn read(text: &str) -> Option<Self> {
        match text.trim() {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::HttpProtobuf),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Option<Otlp> {
        let settings = Settings {
            log_format: LogFormat::Auto,
            log_filter: "info".into(),
            otlp_endpoint: endpoint.map(|url| Url::parse(url).unwrap()),
            otlp_protocol: None,
        };
        Otlp::of(&settings, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_exported_unless_somebody_names_a_collector() {
        assert_eq!(of(None, &[]), None);
        assert_eq!(of(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        let disabled = [("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(of(Some("http://c:4317"), &disabled), None);
        let neither = [
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        assert_eq!(of(Some("http://c:4317"), &neither), None);
    }

    #[test]
    fn the_standard_variables_are_followed_where_ours_say_nothing() {
        let traces = of(
            None,
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317")],
        )
        .unwrap();
        assert!(traces.traces && !traces.metrics);
        assert_eq!(traces.endpoint, None);

        let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        let http = of(Some("http://c:1/otlp/"), &http).unwrap();
        assert_eq!(http.protocol, OtlpProtocol::HttpProtobuf);
        let signal = http.signal("v1/traces");
        assert_eq!(signal.as_deref(), Some("http://c:1/otlp/v1/traces"));
    }

    #[test]
    fn the_usual_port_of_http_means_http() {
        let protocol = |url| of(Some(url), &[]).unwrap().protocol;
        assert_eq!(protocol("http://c:4317"), OtlpProtocol::Grpc);
        assert_eq!(protocol("http://c:4318"), OtlpProtocol::HttpProtobuf);
        assert_eq!(protocol("http://c:9"), OtlpProtocol::Grpc);
    }
}
