//! The calls that the console serves.

use serde_json::json;

use super::*;
use crate::support::{
    http::post,
    requests::{ACCOUNT, esim_callback},
};

const SECRET: &str = "a-path-secret-of-24-chars";

#[tokio::test]
async fn reads_are_served_and_changes_are_not() {
    let env = start().await;
    for method in ["GetServerInfo", "ListChanges"] {
        let (status, text) =
            status_and_text(call(&env.gateway, &format!("GatewayService/{method}"), &json!({})))
                .await;
        assert_eq!(status, 200, "{method}: {text}");
    }
    for method in [
        "thingspace.gateway.v1.GatewayService/ChangeEsimPlan",
        "thingspace.gateway.v1.GatewayService/ChangeFiveGBiPlan",
        "thingspace.gateway.v1.GatewayService/ChangeServicePlan",
        "thingspace.gateway.v1.GatewayService/ListServicePlans",
        "thingspace.gateway.v1.GatewayService/NoSuchMethod",
    ] {
        for content_type in
            ["application/json", "application/grpc-web", "application/proto", "application/grpc"]
        {
            let request = http_client().post(url(&env.gateway, &format!("/{method}")));
            let (status, text) =
                status_and_text(request.header("content-type", content_type).body("{}")).await;
            assert_eq!(status, 404, "{method} {content_type}");
            assert!(text.contains("the gRPC port"), "{text}");
        }
    }
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let request =
            http_client().post(url(&env.gateway, path)).header("content-type", "application/json");
        assert_eq!(status_and_text(request.body("{}")).await.0, 404, "{path}");
    }
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let grpc = h2.post(url(&env.gateway, "/thingspace.gateway.v1.GatewayService/ChangeEsimPlan"));
    let grpc = grpc.header("content-type", "application/grpc").header("te", "trailers");
    assert_eq!(status_and_text(grpc.body(vec![0; 5])).await.0, 404);
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn without_identities_the_console_is_read_only() {
    let env = start().await;
    let (status, text) =
        status_and_text(call(&env.gateway, "OperatorService/GetStatus", &json!({}))).await;
    assert_eq!(status, 200, "{text}");
    for (method, message) in [
        ("PauseChanges", json!({})),
        ("ResumeChanges", json!({})),
        ("ResetLockout", json!({})),
        ("SetLogFilter", json!({ "filter": "trace" })),
        ("ListQuarantinedCallbacks", json!({})),
        ("GetQuarantinedCallback", json!({ "id": "1" })),
        ("ReplayQuarantinedCallbacks", json!({ "all": true })),
        ("DropQuarantinedCallback", json!({ "id": "1" })),
    ] {
        let (status, text) =
            status_and_text(call(&env.gateway, &format!("OperatorService/{method}"), &message))
                .await;
        assert_eq!(status, 403, "{method}");
        assert!(
            text.contains("auth.mode other than none") && text.contains("admin.socket"),
            "{text}"
        );
    }
    let (_, info) =
        status_and_text(call(&env.gateway, "GatewayService/GetServerInfo", &json!({}))).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["caller"]["name"], "anonymous");
    let all = json!(["change", "watch", "list", "monitor"]);
    assert_eq!(
        (&info["caller"]["permissions"], &info["caller"]["permissionsOnAllAccounts"]),
        (&all, &all)
    );
}

#[tokio::test]
async fn the_status_has_the_last_callbacks_without_their_content() {
    let configure = |setup: Setup| {
        with_console(setup)
            .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
            .set("callbacks.require_password", "")
    };
    let env = TestEnv::start_offline(configure).await;
    let callbacks = env.gateway.callbacks;
    let url = format!("http://{callbacks}/accounts/{ACCOUNT}/callbacks/DeviceProfileService");
    let callback = esim_callback("request-1", 1).to_string();
    let stored = format!("{url}/{SECRET}");
    for _ in 0..2 {
        assert_eq!(post(&stored, callback.clone()).await.0, 200);
    }
    assert_eq!(post(&stored, "no JSON").await.0, 200);
    // A flood of requests without the secret does not replace them.
    for _ in 0..60 {
        assert_ne!(post(&format!("{url}/another-path-secret-0"), callback.clone()).await.0, 200);
    }
    let (_, text) =
        status_and_text(call(&env.gateway, "OperatorService/GetStatus", &json!({}))).await;
    assert!(
        !text.contains("request-1") && !text.contains(SECRET) && !text.contains("127.0.0.1"),
        "{text}"
    );
    let status: Value = serde_json::from_str(&text).unwrap();
    let count = |outcome: &str| {
        let counts = status["callbackCounts"].as_array().unwrap();
        let entry = counts.iter().find(|entry| entry["outcome"] == outcome).unwrap();
        entry["count"].as_str().unwrap_or("0").to_owned()
    };
    let counts = ["stored", "duplicate", "spooled", "quarantined", "rejected"].map(count);
    assert_eq!(counts, ["1", "1", "0", "1", "60"]);
    let recent = status["recentCallbacks"].as_array().unwrap();
    let outcomes: Vec<_> =
        recent.iter().map(|callback| callback["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["quarantined", "duplicate", "stored"]);
    assert_eq!(
        (&recent[0]["reason"], &recent[0]["quarantineId"]),
        (&json!("malformed"), &json!("1"))
    );
    for callback in recent {
        assert_eq!(
            (&callback["accountName"], &callback["service"]),
            (&json!(ACCOUNT), &json!("DeviceProfileService"))
        );
        assert!(callback["receiveTime"].is_string());
    }
    assert!(status["startTime"].is_string());
}
