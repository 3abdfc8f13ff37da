mod fake;
mod listeners;
mod login;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use url::Url;

use super::*;
use crate::{
    config::FiveGBiHttpMethod,
    domain::newtypes::AccountName,
    operations::{
        RpcOperation,
        esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange,
        testing::{RULES, esim_message, five_g_bi_message},
    },
    proto,
};
use fake::{ESIM, FIVE_G_BI, LOG_IN, Scripted, ScriptedThingSpace, TOKEN};

const EXPIRED: &str = r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"}"#;
const BAD_TOKEN: &str = r#"{"fault":{"code":"900901","message":"Invalid Credentials"}}"#;
const XML: &str = "<am:fault><am:code>404</am:code><am:message>No</am:message></am:fault>";

/// Credentials that a test can change.
#[derive(Debug)]
struct FakeCredentialStore(
    Mutex<&'static str>,
    Mutex<HashMap<&'static str, FailedLogins>>,
);

impl CredentialSource for FakeCredentialStore {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let secret = |text: &str| SecretString::from(text);
        Ok(ThingSpaceCredentials {
            app_key: secret("the-key"),
            app_secret: secret("the-secret"),
            uws_username: secret("the-user"),
            uws_password: secret(*self.0.lock().unwrap()),
        })
    }
}

/// Outlives the clients, as a journal does.
#[async_trait::async_trait]
impl FailedLoginStore for FakeCredentialStore {
    async fn load(&self, _: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        let password = *self.0.lock().unwrap();
        let stored = self.1.lock().unwrap().get(password).copied();
        Ok(stored.unwrap_or_default())
    }
    async fn store(&self, _: &ThingSpaceCredentials, failed: FailedLogins) -> Result<(), String> {
        let password = *self.0.lock().unwrap();
        self.1.lock().unwrap().insert(password, failed);
        Ok(())
    }
}

fn credential_store(password: &'static str) -> Arc<FakeCredentialStore> {
    Arc::new(FakeCredentialStore(Mutex::new(password), Mutex::default()))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn client_with(
    base_url: &str,
    source: &Arc<FakeCredentialStore>,
    method: FiveGBiHttpMethod,
) -> ThingSpace {
    let settings = ThingSpaceSettings {
        base_url: base_url.parse().unwrap(),
        wire: WireSettings {
            five_g_bi_http_method: method,
        },
        request_timeout: Duration::from_secs(60),
        credentials: Arc::<FakeCredentialStore>::clone(source),
        failed_logins: Arc::<FakeCredentialStore>::clone(source),
        changes_per_minute: NonZeroU32::MAX,
        lookups_per_minute: NonZeroU32::MAX,
    };
    ThingSpace::new(settings, Instruments::noop()).unwrap()
}

fn client(base_url: &str) -> ThingSpace {
    client_with(
        base_url,
        &credential_store("the-password"),
        FiveGBiHttpMethod::Post,
    )
}

fn esim() -> ChangeRequest {
    let mut message = esim_message("key", [0]);
    message.service_plan = "new plan".into();
    message.devices[0].eid = "89049032000001000000000000000001".into();
    message.devices[0].iccid = "89148000000800139708".into();
    EsimPlanChange::validate(message, RULES).unwrap()
}

/// A 5G change with the required values, or with all values.
fn five_g_bi(full: bool) -> ChangeRequest {
    let ids: &[(&str, &str)] = &[("meid", "A100003685E561"), ("imei", "990013907835573")];
    let mut message = five_g_bi_message("key", &[ids]);
    message.service_plan = "new plan".into();
    let place = message.devices[0].primary_place_of_use.as_mut().unwrap();
    let (address, name) = (
        place.address.as_mut().unwrap(),
        place.customer_name.as_mut().unwrap(),
    );
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

fn answer(status: u16, body: &str) -> Scripted {
    Scripted::Answer(status, body.to_owned())
}

fn expect_refusal(answer: ChangeResponse) -> Refusal {
    match answer {
        ChangeResponse::Refused(refusal) | ChangeResponse::NotExecuted(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_esim_change_is_sent_as_documented() {
    let fake = ScriptedThingSpace::start().await;
    let answer = client(&format!("{}/", fake.base_url))
        .send_change(&esim(), None)
        .await;
    let request_id = RequestId::parse("d1f08526-5443-4054-9a29-4456490ea9f8").unwrap();
    assert_eq!(answer, ChangeResponse::Accepted(request_id));

    let [seen] = &fake.received(ESIM)[..] else {
        panic!()
    };
    assert_eq!(seen.method, "POST");
    assert_eq!(
        seen.body,
        r#"{"devices":[{"deviceIds":[{"kind":"eid","id":"89049032000001000000000000000001"},{"kind":"iccid","id":"89148000000800139708"}]}],"accountName":"0000123456-00001","servicePlan":"new plan"}"#
    );
    for (name, value) in [
        ("authorization", "Bearer token-1"),
        ("vz-m2m-token", "session-1"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
}

#[tokio::test]
async fn a_5g_change_is_sent_as_documented_with_the_configured_method() {
    let fake = ScriptedThingSpace::start().await;
    client(&fake.base_url)
        .send_change(&five_g_bi(true), None)
        .await;
    let source = credential_store("the-password");
    let put = client_with(&fake.base_url, &source, FiveGBiHttpMethod::Put);
    put.send_change(&five_g_bi(false), None).await;

    let seen = fake.received(FIVE_G_BI);
    assert_eq!(
        (seen[0].method.as_str(), seen[1].method.as_str()),
        ("POST", "PUT")
    );
    assert_eq!(
        seen[0].body,
        r#"{"accountName":"0000123456-00001","servicePlan":"new plan","deviceListWithServiceAddress":[{"deviceIds":[{"id":"A100003685E561","kind":"MEID"},{"id":"990013907835573","kind":"imei"}],"primaryPlaceOfUse":{"address":{"addressLine1":"1 Main St","addressLine2":"Suite 2","city":"Dallas","state":"TX","country":"US","zip":"75001","zip4":"0001"},"customerName":{"title":"Dr.","firstName":"Ada","middleName":"B","lastName":"Lovelace","suffix":"III"}}}],"currentServicePlan":"old plan"}"#
    );
    assert_eq!(
        serde_json::from_str::<Value>(&seen[1].body).unwrap(),
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
async fn a_refused_authentication_is_renewed_as_far_as_needed_and_the_change_replayed_once() {
    for (status, body, tokens, sessions) in [
        (401, BAD_TOKEN, 2, 1),
        (403, XML, 2, 2),
        (400, EXPIRED, 1, 2),
        (401, EXPIRED, 1, 2),
        (401, "", 2, 2),
        (403, "", 2, 2),
    ] {
        let fake = ScriptedThingSpace::start().await;
        fake.script(ESIM, [answer(status, body)]);
        let healed = client(&fake.base_url).send_change(&esim(), None).await;
        assert!(
            matches!(healed, ChangeResponse::Accepted(_)),
            "{status} {body} {healed:?}"
        );
        assert_eq!(fake.counts(), (tokens, sessions, 2), "{status} {body}");

        let fake = ScriptedThingSpace::start().await;
        fake.script(ESIM, [answer(status, body), answer(status, body)]);
        let refused = client(&fake.base_url).send_change(&esim(), None).await;
        assert!(
            matches!(refused, ChangeResponse::NotExecuted(_)),
            "{status} {body} {refused:?}"
        );
        assert_eq!(expect_refusal(refused).kind, RefusalKind::Credentials);
        assert_eq!(fake.counts(), (tokens, sessions, 2), "{status} {body}");
    }
}

#[tokio::test]
async fn a_token_and_a_session_that_both_ended_are_each_renewed_once() {
    let fake = ScriptedThingSpace::start().await;
    fake.script(ESIM, [answer(401, BAD_TOKEN), answer(400, EXPIRED)]);
    let healed = client(&fake.base_url).send_change(&esim(), None).await;
    assert!(matches!(healed, ChangeResponse::Accepted(_)), "{healed:?}");
    assert_eq!(fake.counts(), (2, 2, 3));

    let fake = ScriptedThingSpace::start().await;
    let script = [(401, BAD_TOKEN), (400, EXPIRED), (401, BAD_TOKEN)];
    fake.script(ESIM, script.map(|(status, body)| answer(status, body)));
    let refused = client(&fake.base_url).send_change(&esim(), None).await;
    assert_eq!(expect_refusal(refused).kind, RefusalKind::Credentials);
    assert_eq!(fake.counts(), (2, 2, 3), "and no more");
}

/// A client that has logged in and whose changes then go elsewhere.
async fn redirected_client(base_url: &str) -> ThingSpace {
    let fake = ScriptedThingSpace::start().await;
    let mut client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    client.endpoint = Endpoint::new(&base_url.parse().unwrap()).unwrap();
    client
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = redirected_client(&format!("http://{address}")).await;
    let answer = client.send_change(&esim(), None).await;
    assert!(
        matches!(answer, ChangeResponse::NotExecuted(_)),
        "{answer:?}"
    );
    assert_eq!(expect_refusal(answer).kind, RefusalKind::NotSent);
}

#[tokio::test]
async fn a_failed_tls_handshake_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let client = redirected_client(&format!("https://{address}")).await;
    let answer = client.send_change(&esim(), None).await;
    assert!(
        matches!(answer, ChangeResponse::NotExecuted(_)),
        "{answer:?}"
    );
    assert_eq!(expect_refusal(answer).kind, RefusalKind::NotSent);
}

#[tokio::test]
async fn a_change_that_left_and_got_no_definite_answer_is_unknown_and_never_sent_again() {
    let fake = ScriptedThingSpace::start().await;
    let elsewhere = format!("{}/elsewhere", fake.base_url);
    let scripts = [
        Scripted::Drop,
        Scripted::Redirect(elsewhere),
        answer(200, &" ".repeat(1_100_000)),
        answer(500, "1 Main St"),
    ];
    fake.script(ESIM, scripts);
    let client = client(&fake.base_url);
    for sent in 1..=4 {
        let answer = client.send_change(&esim(), None).await;
        assert!(matches!(answer, ChangeResponse::Unknown(_)), "{answer:?}");
        assert_eq!(fake.counts(), (1, 1, sent));
    }
    assert!(fake.received("/api/elsewhere").is_empty());
}

#[tokio::test]
async fn a_change_that_is_not_answered_in_time_is_unknown_and_never_sent_again() {
    let fake = ScriptedThingSpace::start().await;
    fake.script(ESIM, [Scripted::Hang]);
    let mut client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    let base_url: Url = fake.base_url.parse().unwrap();
    client.http = Http::new(&base_url, Duration::from_secs(1), Instruments::noop()).unwrap();
    let answer = client.send_change(&esim(), None).await;
    let why = "ThingSpace did not answer in time".to_owned();
    assert_eq!(answer, ChangeResponse::Unknown(why));
    assert_eq!(fake.counts(), (1, 1, 1));
}

#[tokio::test]
async fn each_change_leaves_on_a_connection_of_its_own() {
    let fake = ScriptedThingSpace::start().await;
    let client = client(&fake.base_url);
    for _ in 0..3 {
        client.send_change(&esim(), None).await;
    }
    let on = |path| fake.received(path).into_iter().map(|seen| seen.connection);
    let mut used: Vec<usize> = on(ESIM).chain(on(LOG_IN)).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 4);
}

#[tokio::test]
async fn a_refusal_shows_no_name_no_address_and_no_credential() {
    let fake = ScriptedThingSpace::start().await;
    let message = "1 MAIN ST, Dallas is not Ada's, the-user (the-password) token-1 session-1\u{7}";
    let body = json!({
        "errorCode": "UnifiedWebService.INPUT_INVALID.Address.Lovelace",
        "errorMessage": message,
    });
    fake.script(FIVE_G_BI, [answer(400, &body.to_string())]);
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
    let source = FakeCredentialStore(Mutex::new("the-password"), Mutex::default());
    assert!(!format!("{:?}", CredentialSource::load(&source).unwrap()).contains("the-"));
}

#[test]
fn a_base_url_is_an_http_url_with_nothing_but_a_path() {
    for (base_url, below) in [
        (
            "https://thingspace.verizon.com/api",
            Some("https://thingspace.verizon.com/api/m2m"),
        ),
        (
            "https://thingspace.verizon.com/api/",
            Some("https://thingspace.verizon.com/api/m2m"),
        ),
        ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080/m2m")),
        ("ftp://host/", None),
        ("https://user:word@host/api", None),
        ("https://host/api?x=1", None),
        ("data:text", None),
    ] {
        let url: Url = base_url.parse().unwrap();
        let at = Endpoint::new(&url)
            .ok()
            .map(|base| base.join("/m2m").to_string());
        assert_eq!(at.as_deref(), below, "{base_url}");
    }
}
