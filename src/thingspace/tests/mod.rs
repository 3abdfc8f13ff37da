//! The client against a scripted ThingSpace.

mod fake;
mod listeners;
mod login;
mod tls;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};
use url::Url;

use super::{
    http::HttpClient,
    tests::fake::{ESIM, FIVE_G_BI, LOG_IN, Scripted, ScriptedThingSpace, TOKEN},
    *,
};
use crate::{
    config::{Config, FiveGBiHttpMethod, Sources},
    domain::{
        newtypes::{AccountName, RequestId},
        refusal::{Refusal, RefusalKind},
    },
    operations::{
        ChangeRequest, RpcOperation,
        esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange,
        testing::{RULES, esim_message, five_g_bi_message},
    },
    proto,
    telemetry::Instruments,
};

const EXPIRED: &str = r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"}"#;
const BAD_TOKEN: &str = r#"{"fault":{"code":"900901","message":"Invalid Credentials"}}"#;
const XML: &str = "<am:fault><am:code>404</am:code><am:message>No</am:message></am:fault>";

/// A credential source with a variable password, and a store of failed log-ins by password.
#[derive(Debug)]
struct FakeCredentialStore {
    password: Mutex<&'static str>,
    failed: Mutex<HashMap<&'static str, FailedLogins>>,
}

impl CredentialSource for FakeCredentialStore {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let secret = |text: &str| SecretString::from(text);
        Ok(ThingSpaceCredentials {
            app_key: secret("the-key"),
            app_secret: secret("the-secret"),
            uws_username: secret("the-user"),
            uws_password: secret(*self.password.lock()),
        })
    }
}

#[async_trait::async_trait]
impl FailedLoginStore for FakeCredentialStore {
    async fn load(&self, _: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        let password = *self.password.lock();
        let failed = self.failed.lock().get(password).copied();
        Ok(failed.unwrap_or_default())
    }

    async fn store(&self, _: &ThingSpaceCredentials, failed: FailedLogins) -> Result<(), String> {
        let password = *self.password.lock();
        self.failed.lock().insert(password, failed);
        Ok(())
    }
}

fn credential_store(password: &'static str) -> Arc<FakeCredentialStore> {
    Arc::new(FakeCredentialStore { password: Mutex::new(password), failed: Mutex::default() })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn client_with(
    base_url: &str,
    source: &Arc<FakeCredentialStore>,
    method: FiveGBiHttpMethod,
) -> ThingSpace {
    replica(base_url, source, method, None)
}

fn replica(
    base_url: &str,
    source: &Arc<FakeCredentialStore>,
    method: FiveGBiHttpMethod,
    shared: Option<SharedState>,
) -> ThingSpace {
    let mut config = Config::load(&Sources::default()).unwrap().config.thingspace;
    config.base_url = base_url.parse().unwrap();
    config.five_g_bi_http_method = method;
    config.changes_per_minute = u32::MAX;
    config.lookups_per_minute = u32::MAX;
    let (credentials, failed_logins) = (Arc::clone(source), Arc::clone(source));
    ThingSpace::new(&config, credentials, failed_logins, shared, Instruments::noop()).unwrap()
}

fn client(base_url: &str) -> ThingSpace {
    client_with(base_url, &credential_store("the-password"), FiveGBiHttpMethod::Post)
}

fn esim() -> ChangeRequest {
    let mut message = esim_message("key", [0]);
    message.service_plan = "new plan".into();
    message.devices[0].eid = "89049032000001000000000000000001".into();
    message.devices[0].iccid = "89148000000800139708".into();
    EsimPlanChange::validate(message, RULES).unwrap()
}

/// A 5G Business Internet change with all values, or only the required ones.
fn five_g_bi(full: bool) -> ChangeRequest {
    let ids: &[(&str, &str)] = &[("meid", "A100003685E561"), ("imei", "990013907835573")];
    let mut message = five_g_bi_message("key", &[ids]);
    message.service_plan = "new plan".into();
    let place = message.devices[0].primary_place_of_use.as_mut().unwrap();
    let (address, name) = (place.address.as_mut().unwrap(), place.customer_name.as_mut().unwrap());
    name.last_name = "Lovelace".into();
    if full {
        message.current_service_plan = "old plan".into();
    } else {
        address.address_line2 = String::new();
        address.zip4 = String::new();
        *name = proto::CustomerName {
            first_name: "Ada".into(),
            last_name: "Lovelace".into(),
            ..Default::default()
        };
    }
    FiveGBiPlanChange::validate(message, RULES).unwrap()
}

fn response(status: u16, body: &str) -> Scripted {
    Scripted::Response(status, body.to_owned())
}

fn expect_refusal(response: ChangeResponse) -> Refusal {
    match response {
        ChangeResponse::Refused(refusal) | ChangeResponse::NotExecuted(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_esim_change_is_sent_as_documented() {
    let fake = ScriptedThingSpace::start().await;
    let response = client(&format!("{}/", fake.base_url)).send_change(&esim(), None).await;
    let request_id = RequestId::parse("d1f08526-5443-4054-9a29-4456490ea9f8").unwrap();
    assert_eq!(response, ChangeResponse::Accepted(request_id));

    let [received] = &fake.received(ESIM)[..] else { panic!() };
    assert_eq!(received.method, "POST");
    assert_eq!(
        received.body,
        r#"{"devices":[{"deviceIds":[{"kind":"eid","id":"89049032000001000000000000000001"},{"kind":"iccid","id":"89148000000800139708"}]}],"accountName":"0000123456-00001","servicePlan":"new plan"}"#
    );
    for (name, value) in [
        ("authorization", "Bearer token-1"),
        ("vz-m2m-token", "session-1"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ] {
        assert_eq!(received.headers[name], value);
    }
}

#[tokio::test]
async fn a_5g_change_is_sent_as_documented_with_the_configured_method() {
    let fake = ScriptedThingSpace::start().await;
    client(&fake.base_url).send_change(&five_g_bi(true), None).await;
    let source = credential_store("the-password");
    let put = client_with(&fake.base_url, &source, FiveGBiHttpMethod::Put);
    put.send_change(&five_g_bi(false), None).await;

    let received = fake.received(FIVE_G_BI);
    assert_eq!((received[0].method.as_str(), received[1].method.as_str()), ("POST", "PUT"));
    assert_eq!(
        received[0].body,
        r#"{"accountName":"0000123456-00001","servicePlan":"new plan","deviceListWithServiceAddress":[{"deviceIds":[{"id":"A100003685E561","kind":"MEID"},{"id":"990013907835573","kind":"imei"}],"primaryPlaceOfUse":{"address":{"addressLine1":"1 Main St","addressLine2":"Suite 2","city":"Dallas","state":"TX","country":"US","zip":"75001","zip4":"0001"},"customerName":{"title":"Dr.","firstName":"Ada","middleName":"B","lastName":"Lovelace","suffix":"III"}}}],"currentServicePlan":"old plan"}"#
    );
    assert_eq!(
        serde_json::from_str::<Value>(&received[1].body).unwrap(),
        json!({
            "accountName": "0000123456-00001",
            "servicePlan": "new plan",
            "deviceListWithServiceAddress": [{
                "deviceIds": [
                    {"id": "A100003685E561", "kind": "MEID"},
                    {"id": "990013907835573", "kind": "imei"},
                ],
                "primaryPlaceOfUse": {
                    "address": {
                        "addressLine1": "1 Main St", "city": "Dallas", "state": "TX",
                        "country": "US", "zip": "75001",
                    },
                    "customerName": {"firstName": "Ada", "lastName": "Lovelace"},
                },
            }],
        })
    );
}

#[tokio::test]
async fn a_refused_token_or_session_is_renewed_and_the_change_sent_once_more() {
    for (status, body, tokens, sessions) in [
        (401, BAD_TOKEN, 2, 1),
        (403, XML, 2, 2),
        (400, EXPIRED, 1, 2),
        (401, EXPIRED, 1, 2),
        (401, "", 2, 2),
        (403, "", 2, 2),
    ] {
        let fake = ScriptedThingSpace::start().await;
        fake.script(ESIM, [response(status, body)]);
        let retried = client(&fake.base_url).send_change(&esim(), None).await;
        assert!(matches!(retried, ChangeResponse::Accepted(_)), "{status} {body} {retried:?}");
        assert_eq!(fake.counts(), (tokens, sessions, 2), "{status} {body}");

        let fake = ScriptedThingSpace::start().await;
        fake.script(ESIM, [response(status, body), response(status, body)]);
        let refused = client(&fake.base_url).send_change(&esim(), None).await;
        assert!(matches!(refused, ChangeResponse::NotExecuted(_)), "{status} {body} {refused:?}");
        assert_eq!(expect_refusal(refused).kind, RefusalKind::Credentials);
        assert_eq!(fake.counts(), (tokens, sessions, 2), "{status} {body}");
    }
}

#[tokio::test]
async fn a_token_and_a_session_that_both_expired_are_each_renewed_once() {
    let fake = ScriptedThingSpace::start().await;
    fake.script(ESIM, [response(401, BAD_TOKEN), response(400, EXPIRED)]);
    let retried = client(&fake.base_url).send_change(&esim(), None).await;
    assert!(matches!(retried, ChangeResponse::Accepted(_)), "{retried:?}");
    assert_eq!(fake.counts(), (2, 2, 3));

    let fake = ScriptedThingSpace::start().await;
    let script = [(401, BAD_TOKEN), (400, EXPIRED), (401, BAD_TOKEN)];
    fake.script(ESIM, script.map(|(status, body)| response(status, body)));
    let refused = client(&fake.base_url).send_change(&esim(), None).await;
    assert_eq!(expect_refusal(refused).kind, RefusalKind::Credentials);
    assert_eq!(fake.counts(), (2, 2, 3), "no further attempt");
}

fn http_client(base_url: &str, request_timeout: Duration) -> Result<HttpClient, ClientBuildError> {
    let base_url: Url = base_url.parse().unwrap();
    let builder = no_retry_client(&base_url, request_timeout);
    HttpClient::new(builder, &base_url, 1_000, Instruments::noop())
}

fn url(client: &HttpClient, template: &str, values: &[&str]) -> Url {
    client.request(Method::GET, template, values).build().unwrap().url().clone()
}

/// A client that has logged in, and sends its changes to another base URL.
async fn redirected_client(base_url: &str) -> ThingSpace {
    let fake = ScriptedThingSpace::start().await;
    let mut client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    client.http = http_client(base_url, Duration::from_secs(60)).unwrap();
    client
}

#[tokio::test]
async fn a_change_without_a_connection_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = redirected_client(&format!("http://{address}")).await;
    let response = client.send_change(&esim(), None).await;
    assert!(matches!(response, ChangeResponse::NotExecuted(_)), "{response:?}");
    assert_eq!(expect_refusal(response).kind, RefusalKind::NotSent);
}

#[tokio::test]
async fn a_change_without_a_tls_handshake_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let client = redirected_client(&format!("https://{address}")).await;
    let response = client.send_change(&esim(), None).await;
    assert!(matches!(response, ChangeResponse::NotExecuted(_)), "{response:?}");
    assert_eq!(expect_refusal(response).kind, RefusalKind::NotSent);
}

#[tokio::test]
async fn a_change_without_a_conclusive_response_is_unknown_and_never_sent_again() {
    let fake = ScriptedThingSpace::start().await;
    let elsewhere = format!("{}/elsewhere", fake.base_url);
    let scripts = [
        Scripted::Drop,
        Scripted::Redirect(elsewhere),
        response(200, &" ".repeat(1_100_000)),
        response(500, "1 Main St"),
    ];
    fake.script(ESIM, scripts);
    let client = client(&fake.base_url);
    for sent in 1..=4 {
        let response = client.send_change(&esim(), None).await;
        assert!(matches!(response, ChangeResponse::Unknown(_)), "{response:?}");
        assert_eq!(fake.counts(), (1, 1, sent));
    }
    assert!(fake.received("/api/elsewhere").is_empty());
}

#[tokio::test]
async fn a_change_that_times_out_is_unknown_and_never_sent_again() {
    let fake = ScriptedThingSpace::start().await;
    fake.script(ESIM, [Scripted::Hang]);
    let mut client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    client.http = http_client(&fake.base_url, Duration::from_secs(1)).unwrap();
    let response = client.send_change(&esim(), None).await;
    let reason = "ThingSpace did not respond within thingspace.request_timeout".to_owned();
    assert_eq!(response, ChangeResponse::Unknown(reason));
    assert_eq!(fake.counts(), (1, 1, 1));
}

#[tokio::test]
async fn each_change_uses_its_own_connection() {
    let fake = ScriptedThingSpace::start().await;
    let client = client(&fake.base_url);
    for _ in 0..3 {
        client.send_change(&esim(), None).await;
    }
    let on = |path| fake.received(path).into_iter().map(|request| request.connection);
    let mut used: Vec<usize> = on(ESIM).chain(on(LOG_IN)).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 4);
}

#[tokio::test]
async fn a_refusal_contains_no_name_address_or_credential() {
    let fake = ScriptedThingSpace::start().await;
    let message = "1 MAIN ST, Dallas is not Ada's, the-user (the-password) token-1 session-1\u{7}";
    let body = json!({
        "errorCode": "UnifiedWebService.INPUT_INVALID.Address.Lovelace",
        "errorMessage": message,
    });
    fake.script(FIVE_G_BI, [response(400, &body.to_string())]);
    let client = client(&fake.base_url);
    let refused = client.send_change(&five_g_bi(true), None).await;
    let refusal = expect_refusal(refused);
    assert_eq!(refusal.kind, RefusalKind::InvalidArgument);
    assert_eq!(
        refusal.thingspace_text.unwrap(),
        "[redacted], [redacted] is not [redacted]'s, [redacted] ([redacted]) [redacted] [redacted] "
    );
    assert_eq!(
        refusal.thingspace_code.unwrap(),
        "UnifiedWebService.INPUT_INVALID.Address.[redacted]"
    );
    assert_eq!(format!("{client:?}"), "ThingSpace { .. }");
    let credentials = CredentialSource::load(&*credential_store("the-password")).unwrap();
    assert!(!format!("{credentials:?}").contains("the-"));
}

#[test]
fn a_base_url_has_no_user_name_query_or_fragment() {
    for (base_url, expected) in [
        ("https://thingspace.verizon.com/api", Some("https://thingspace.verizon.com/api/m2m")),
        ("https://thingspace.verizon.com/api/", Some("https://thingspace.verizon.com/api/m2m")),
        ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080/m2m")),
        ("ftp://host/", None),
        ("https://user:word@host/api", None),
        ("https://host/api?x=1", None),
        ("data:text", None),
    ] {
        let client = http_client(base_url, Duration::from_secs(1)).ok();
        let url = client.map(|client| url(&client, "/m2m", &[]).to_string());
        assert_eq!(url.as_deref(), expected, "{base_url}");
    }
}

#[test]
fn values_replace_the_placeholders_of_a_path_and_are_escaped() {
    let client = http_client("http://127.0.0.1/api/", Duration::from_secs(1)).unwrap();
    let template = "/accounts/{account}/requests/{request}/status";
    let url = url(&client, template, &["a-1", "x/y?z"]);
    assert_eq!(url.path(), "/api/accounts/a-1/requests/x%2Fy%3Fz/status");
}
