//! The way to an OpenTelemetry collector: what the settings and the standard variables say together.

use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

use crate::support::{
    gateway::{Setup, TEST_TIMEOUT, TestDir},
    thingspace::FakeThingSpace,
};

/// Starts a gateway with this `telemetry.otlp_protocol` and these variables, and returns the first bytes
/// that a collector gets from it.
async fn first_bytes(protocol: &str, variables: &[(&str, &str)]) -> String {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("telemetry.otlp_endpoint", &endpoint)
        .set("telemetry.otlp_protocol", protocol)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "50");
    for (name, value) in variables {
        setup = setup.env(name, value);
    }
    let _gateway = setup.start().await;
    let exchange = async {
        let (mut stream, _) = collector.accept().await.unwrap();
        let mut bytes = [0; 16];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    timeout(TEST_TIMEOUT, exchange).await.expect("an export")
}

#[tokio::test]
async fn the_protocol_of_the_settings_stands_over_every_standard_variable() {
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
