//! The pages that may make calls.

use serde_json::json;

use super::*;

#[tokio::test]
async fn only_the_own_page_may_make_calls() {
    let env = start().await;
    let own = url(&env.gateway, "");
    let status = || call(&env.gateway, "OperatorService/GetStatus", &json!({}));
    let same = status().header("origin", &own).header("sec-fetch-site", "same-origin");
    assert_eq!(status_and_text(same).await.0, 200);
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", &own.replace("http:", "https:")),
        ("origin", "http://127.0.0.1:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let (code, text) = status_and_text(status().header(name, value)).await;
        assert_eq!(code, 403, "{name}: {value}");
        assert!(text.contains("only its own page"), "{text}");
    }
    let preflight = http_client().request(
        http::Method::OPTIONS,
        url(&env.gateway, "/thingspace.gateway.v1.OperatorService/GetStatus"),
    );
    let preflight = preflight
        .header("origin", "http://evil.example")
        .header("access-control-request-method", "POST");
    assert_eq!(status_and_text(preflight).await.0, 403);
    let script = http_client()
        .get(url(&env.gateway, "/console/main.js"))
        .header("sec-fetch-site", "cross-site");
    assert_eq!(status_and_text(script).await.0, 403);
}

#[tokio::test]
async fn a_host_name_that_an_attacker_can_own_does_not_lead_to_the_console() {
    let env = start().await;
    for (host, expected) in [
        ("localhost:9091", 200),
        ("console.localhost", 200),
        ("evil.example", 421),
        ("evil.example:9091", 421),
    ] {
        let origin = format!("http://{host}");
        let request =
            call(&env.gateway, "OperatorService/GetStatus", &json!({})).header("host", host);
        let (status, text) = status_and_text(
            request.header("origin", &origin).header("sec-fetch-site", "same-origin"),
        )
        .await;
        assert_eq!(status, expected, "{host}");
        if expected == 421 {
            assert!(text.contains("grpc.allowed_origins"), "{text}");
        }
        let page = http_client().get(url(&env.gateway, "/console/")).header("host", host);
        assert_eq!(status_and_text(page).await.0, expected, "{host}");
    }
}

#[tokio::test]
async fn an_allowed_origin_of_the_grpc_port_names_a_host_and_gets_no_cors() {
    let configure = |setup| {
        with_console(setup)
            .set("grpc.allowed_origins", "https://console.example.com,https://other.example")
    };
    let env = TestEnv::start_offline(configure).await;
    for (host, origin, expected) in [
        ("console.example.com", "https://console.example.com", 200),
        // The page of another host, even if the gRPC port accepts it.
        ("console.example.com", "https://other.example", 403),
        ("localhost", "https://other.example", 403),
    ] {
        let request = call(&env.gateway, "OperatorService/GetStatus", &json!({}));
        let (status, _) =
            status_and_text(request.header("host", host).header("origin", origin)).await;
        assert_eq!(status, expected, "{host} {origin}");
    }
}
