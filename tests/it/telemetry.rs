//! Export to an OpenTelemetry collector: settings override the standard variables.

use tokio::{io::AsyncReadExt as _, net::TcpListener};

use crate::support::{env::TestEnv, wait::in_time};

/// Starts a gateway with this `telemetry.otlp_protocol` and these variables. Returns the first bytes
/// that a collector receives.
async fn first_bytes(protocol: &str, variables: &[(&str, &str)]) -> String {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let _env = TestEnv::start_with(|setup| {
        let setup = setup
            .set("telemetry.otlp_endpoint", &endpoint)
            .set("telemetry.otlp_protocol", protocol)
            .env("OTEL_METRIC_EXPORT_INTERVAL", "50");
        let variables = variables.iter();
        variables.fold(setup, |setup, (name, value)| setup.env(name, value))
    })
    .await;
    let exchange = async {
        let (mut stream, _) = collector.accept().await.unwrap();
        let mut bytes = [0; 16];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    in_time(exchange).await
}

#[tokio::test]
async fn the_protocol_of_the_settings_overrides_every_standard_variable() {
    for name in [
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    ] {
        let http = first_bytes("http/protobuf", &[(name, "grpc")]).await;
        assert!(http.starts_with("POST /v1/"), "{name}: {http}");
        let grpc = first_bytes("grpc", &[(name, "http/protobuf")]).await;
        assert!(grpc.starts_with("PRI * HTTP/2.0"), "{name}: {grpc}");
    }
    let unknown = [("OTEL_EXPORTER_OTLP_PROTOCOL", "no-such-protocol")];
    let http = first_bytes("http/protobuf", &unknown).await;
    assert!(http.starts_with("POST /v1/"), "{http}");
}
