//! Callback listeners.

use secrecy::ExposeSecret;

use super::*;

const LISTENERS: &str = "/api/m2m/v1/callbacks/0000123456-00001";

fn account() -> AccountName {
    AccountName::parse("0000123456-00001").unwrap()
}

#[tokio::test]
async fn an_empty_response_lists_no_listener_and_a_malformed_one_is_an_error() {
    let fake = ScriptedThingSpace::start().await;
    let listed = r#"[{"accountName":"0000123456-00001","serviceName":"CarrierService",
        "url":"https://example.com/a","username":null,"password":"planted"}]"#;
    let responses = [
        (200, ""),
        (200, "[]"),
        (200, listed),
        (200, r#"[{"serviceName":"CarrierService"}]"#),
        (200, "<html>"),
        (500, ""),
    ];
    fake.script(LISTENERS, responses.map(|(status, body)| response(status, body)));
    let client = client(&fake.base_url);
    for _ in 0..2 {
        assert!(client.list_listeners(&account()).await.unwrap().is_empty());
    }
    let found = client.list_listeners(&account()).await.unwrap();
    assert_eq!(found[0].url.expose_secret(), "https://example.com/a");
    assert!(found[0].username.is_none() && found[0].password.is_some());
    for _ in 0..3 {
        let error = client.list_listeners(&account()).await;
        assert!(matches!(error, Err(LookupError::NoResponse(_))));
    }
}

#[tokio::test]
async fn a_listener_is_registered_as_documented_and_a_refusal_contains_no_secret() {
    let fake = ScriptedThingSpace::start().await;
    let refusal = r#"{"errorCode":"BAD.https://example.com/planted-path","errorMessage":"No"}"#;
    let known = r#"{"errorCode":"CarrierService.INPUT_INVALID.Port","errorMessage":"No"}"#;
    let responses = [response(200, "{}"), response(400, refusal), response(400, known)];
    fake.script(LISTENERS, responses);
    let client = client(&fake.base_url);
    let new = ListenerRegistration {
        service: "CarrierService".into(),
        url: "https://example.com/planted-path".into(),
        username: Some("user".into()),
        password: Some("word".into()),
    };
    client.register_listener(&account(), &new).await.unwrap();
    let [received] = &fake.received(LISTENERS)[..] else { panic!() };
    let body: Value = serde_json::from_str(&received.body).unwrap();
    let expected = json!({"name": "CarrierService", "url": "https://example.com/planted-path",
        "username": "user", "password": "word"});
    assert_eq!((received.method.as_str(), body), ("POST", expected));
    for (code, kind) in [
        ("BAD.[redacted]", RefusalKind::FailedPrecondition),
        ("CarrierService.INPUT_INVALID.Port", RefusalKind::InvalidArgument),
    ] {
        let refused = LookupError::Refused { status: 400, code: Some(code.into()), kind };
        let result = client.register_listener(&account(), &new).await;
        assert_eq!(result, Err(refused));
    }
}
