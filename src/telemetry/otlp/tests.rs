use super::*;
use crate::config::LogFormat;

type ExportProtocols = Option<(Option<OtlpProtocol>, Option<OtlpProtocol>)>;

fn resolve(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<ExportProtocols, String> {
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
    assert_eq!(resolve(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
    let disabled = [("OTEL_SDK_DISABLED", "TRUE")];
    assert_eq!(resolve(Some("http://c:4317"), &disabled), Ok(None));
    let neither = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")];
    assert_eq!(resolve(Some("http://c:4317"), &neither), Ok(None));
}

#[test]
fn the_standard_variables_are_followed_signal_by_signal() {
    let traces = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")];
    assert_eq!(resolve(None, &traces), Ok(Some((HTTP, None))));
    let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    assert_eq!(resolve(Some("http://c:1/otlp/"), &http), Ok(Some((HTTP, HTTP))));
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
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: expected"), "{error}");
    assert_eq!(resolve(Some("http://c:4317"), &[]), Ok(Some((GRPC, GRPC))));
    assert_eq!(resolve(Some("http://c:4318"), &[]), Ok(Some((HTTP, HTTP))));
    assert_eq!(resolve(Some("http://c:9"), &[]), Ok(Some((GRPC, GRPC))));
}
