//! Tokens and sessions.

use super::*;
use crate::{
    config::FiveGBiHttpMethod,
    thingspace::shared::testing::{NoLimits, SharedStore},
};

#[tokio::test]
async fn the_login_is_sent_as_documented() {
    let fake = ScriptedThingSpace::start().await;
    client(&fake.base_url).prepare(None, soon()).await.unwrap();

    let token = &fake.received(TOKEN)[0];
    assert_eq!(token.method, "POST");
    assert_eq!(token.headers["authorization"], "Basic dGhlLWtleTp0aGUtc2VjcmV0");
    assert_eq!(token.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(token.body, "grant_type=client_credentials");
    let login = &fake.received(LOG_IN)[0];
    assert_eq!(login.headers["authorization"], "Bearer token-1");
    assert_eq!(login.body, r#"{"username":"the-user","password":"the-password"}"#);
}

#[tokio::test]
async fn a_hundred_concurrent_calls_log_in_once_and_once_more_when_the_session_ends() {
    let fake = ScriptedThingSpace::start().await;
    let client = client(&fake.base_url);
    let ready = join_all((0..100).map(|_| client.prepare(None, soon()))).await;
    assert!(ready.iter().all(Result::is_ok));
    assert_eq!(fake.counts(), (1, 1, 0));

    fake.end_session();
    fake.gate_changes(100);
    let change = esim();
    let responses = join_all((0..100).map(|_| client.send_change(&change, None))).await;
    assert!(
        responses.iter().all(|response| matches!(response, ChangeResponse::Accepted(_))),
        "{responses:?}"
    );
    assert_eq!(fake.counts(), (1, 2, 200));
}

#[tokio::test]
async fn a_session_log_in_with_an_expired_token_renews_it_and_is_no_failed_log_in() {
    let fake = ScriptedThingSpace::start().await;
    fake.script(LOG_IN, [response(401, BAD_TOKEN)]);
    client(&fake.base_url).prepare(None, soon()).await.unwrap();
    assert_eq!(fake.counts(), (2, 2, 0));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_its_session_stays_in_use() {
    let fake = ScriptedThingSpace::start().await;
    let client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_541)).await;
    tokio::time::resume();
    fake.script(TOKEN, [response(503, "")]);
    client.prepare(None, soon()).await.expect("the old token is still valid");
    assert_eq!(fake.counts(), (2, 1, 0));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    client.prepare(None, soon()).await.unwrap();
    assert_eq!(fake.counts(), (3, 1, 0));
    assert!(matches!(client.send_change(&esim(), None).await, ChangeResponse::Accepted(_)));
    assert_eq!(fake.received(ESIM)[0].headers["authorization"], "Bearer token-2");
}

#[tokio::test]
async fn a_refusal_of_the_credentials_counts_only_in_a_known_format() {
    const CLIENT: &str = r#"{"error":"invalid_client","error_description":"no app the-key"}"#;
    const REQUEST: &str = r#"{"error":"invalid_request"}"#;
    const PASSWORD: &str =
        r#"{"errorCode":"X.INPUT_INVALID.Password","errorMessage":"no user the-user"}"#;
    const UNEXPECTED: &str = r#"{"errorCode":"X.REQUEST_FAILED.UnexpectedError"}"#;
    const HTML: &str = "<html><body>403 Forbidden</body></html>";
    for (path, status, body, counts) in [
        (TOKEN, 401, CLIENT, true),
        (TOKEN, 400, CLIENT, true),
        (TOKEN, 401, BAD_TOKEN, true),
        (TOKEN, 500, CLIENT, false),
        (TOKEN, 400, REQUEST, false),
        (TOKEN, 403, XML, false),
        (TOKEN, 403, HTML, false),
        (TOKEN, 401, "", false),
        (TOKEN, 401, PASSWORD, false),
        (LOG_IN, 400, PASSWORD, true),
        (LOG_IN, 401, PASSWORD, true),
        (LOG_IN, 400, r#"{"errorCode":"400"}"#, true),
        (LOG_IN, 400, r#"{"errorCode":"500"}"#, false),
        (LOG_IN, 404, PASSWORD, false),
        (LOG_IN, 400, UNEXPECTED, false),
        (LOG_IN, 401, CLIENT, false),
        (LOG_IN, 403, HTML, false),
        (LOG_IN, 401, "", false),
    ] {
        let fake = ScriptedThingSpace::start().await;
        let source = credential_store("the-password");
        let client = client_with(&fake.base_url, &source, FiveGBiHttpMethod::Post);
        fake.script(path, [response(status, body)]);
        let error = client.prepare(None, soon()).await.unwrap_err();
        let kind = match counts {
            true => RefusalKind::Credentials,
            false => RefusalKind::NotSent,
        };
        assert_eq!(error.kind, kind, "{path} {status} {body}");
        let stored = source.failed.lock().get("the-password").copied();
        let stored = stored.unwrap_or_default();
        let counted = (stored.refused, stored.unfinished);
        assert_eq!(counted, (u8::from(counts), 0), "{path} {status} {body}");
        let shown = format!("{error:?}");
        for secret in ["the-key", "the-user", "the-password"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_failed_login_is_classified_and_no_change_is_sent() {
    for (status, kind, wait) in [
        (503, RefusalKind::NotSent, 1),
        (302, RefusalKind::NotSent, 1),
        // The delay of the Retry-After header.
        (429, RefusalKind::Throttled, 7),
    ] {
        let fake = ScriptedThingSpace::start().await;
        fake.script(TOKEN, [response(status, "")]);
        let response = client(&fake.base_url).send_change(&esim(), None).await;
        assert!(matches!(response, ChangeResponse::NotExecuted(_)));
        let refusal = expect_refusal(response);
        let after = refusal.retry_after.unwrap();
        assert_eq!(refusal.kind, kind);
        assert!(after > Duration::ZERO && after <= Duration::from_secs(wait));
        assert_eq!(fake.counts(), (1, 0, 0));
    }
}

#[tokio::test]
async fn a_change_is_sent_although_the_sessions_of_all_replicas_have_expired() {
    let fake = ScriptedThingSpace::start().await;
    let (source, store) = (credential_store("the-password"), Arc::new(SharedStore::default()));
    let [a, b] = [(); 2].map(|()| {
        let shared = SharedState { sessions: store.join(), rate_limits: Arc::new(NoLimits) };
        replica(&fake.base_url, &source, FiveGBiHttpMethod::Post, Some(shared))
    });
    a.prepare(None, soon()).await.unwrap();
    fake.end_session();
    let change = esim();
    assert!(matches!(b.send_change(&change, None).await, ChangeResponse::Accepted(_)));
    // The second replica took the first session, which was refused, and started another one.
    assert_eq!(fake.counts(), (1, 2, 2));
    fake.end_session();
    // The first one is refused with its own session, then with that of the second one.
    assert!(matches!(a.send_change(&change, None).await, ChangeResponse::Accepted(_)));
    assert_eq!(fake.counts(), (1, 3, 5));
}
