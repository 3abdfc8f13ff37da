//! A running sandbox with a client, and a listener that records callbacks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::{CallbackOrder, ResendPolicy, Sandbox, Settings, scenarios};

pub(super) const ACCOUNT: &str = "0000123456-00001";
/// Credentials of listeners that [`Harness::register`] registers.
pub(super) const LISTENER_USERNAME: &str = "user-of-listener";
pub(super) const LISTENER_PASSWORD: &str = "password-of-listener";

/// A running sandbox, and a client with a token and a session.
pub(super) struct Harness {
    pub(super) base: String,
    pub(super) http: Client,
    pub(super) token: String,
    pub(super) session: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
}

/// Settings without delays.
pub(crate) fn quick() -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        seed: 1,
        callback_delay: Duration::ZERO,
        answer_delay: Duration::ZERO,
        slow_answer: Duration::from_secs(5),
        late_delay: Duration::from_secs(10),
        interim_for: Duration::from_secs(1),
        resend: ResendPolicy::Quick,
        resend_after: Some(Duration::from_millis(5)),
        callback_timeout: None,
        failure_rate: 0.0,
        duplicate_rate: 0.0,
        lost_rate: 0.0,
        late_rate: 0.0,
        early_rate: 0.0,
        malformed_rate: 0.0,
        drop_request_rate: 0.0,
        drop_answer_rate: 0.0,
        error_rate: 0.0,
        order: CallbackOrder::AsSent,
        callback_url: None,
        callback_concurrency: 32,
        any_callback_port: false,
        credentials_lag: Duration::ZERO,
        app_key: None,
        app_secret: None,
        uws_username: None,
        uws_password: None,
        token_lifetime: Duration::from_secs(3600),
        session_lifetime: Duration::from_secs(20 * 60),
        single_session: false,
        requests_per_minute: 0,
        initial_plan: "Sandbox Initial Plan".into(),
    }
}

impl Harness {
    pub(super) async fn start(settings: Settings) -> Self {
        let sandbox = Sandbox::bind(settings).await.unwrap();
        let base = sandbox.base_url().to_string();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(sandbox.run(async {
            let _ = stopped.await;
        }));
        let mut harness = Self {
            base,
            http: Client::builder().no_proxy().build().unwrap(),
            token: String::new(),
            session: String::new(),
            stop,
            running,
        };
        harness.token = text(&harness.token_request().await, "access_token");
        harness.login().await;
        harness
    }

    /// Waits until the ledger meets a condition.
    pub(super) async fn wait_for_ledger(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let poll = async {
            loop {
                let ledger = self.ledger().await;
                if wanted(&ledger) {
                    return ledger;
                }
            }
        };
        let poll = tokio::time::timeout(Duration::from_secs(10), poll);
        poll.await.expect("timed out waiting for the ledger")
    }

    /// Waits until no callback is outstanding.
    pub(super) async fn wait_for_callbacks(&self) -> Value {
        self.wait_for_ledger(|ledger| ledger["devices_pending"] == 0).await
    }

    /// Opens a new session.
    pub(super) async fn login(&mut self) {
        let login = json!({ "username": "user", "password": "pass" });
        let response = self.call(Method::POST, "/m2m/v1/session/login", Some(&login)).await;
        self.session = text(&body_with_status(response, 200).await, "sessionToken");
    }

    pub(super) async fn token_request(&self) -> Value {
        let request = self
            .http
            .post(format!("{}/ts/v1/oauth2/token", self.base))
            .basic_auth("key", Some("secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials");
        body_with_status(request.send().await.unwrap(), 200).await
    }

    pub(super) async fn call(&self, method: Method, path: &str, json: Option<&Value>) -> Response {
        self.try_call(method, path, json).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        body_with_status(self.call(Method::GET, path, None).await, 200).await
    }

    pub(super) async fn post(&self, path: &str, json: &Value, status: u16) -> Value {
        body_with_status(self.call(Method::POST, path, Some(json)).await, status).await
    }

    /// Sends a request that may get no response.
    pub(super) async fn try_call(
        &self,
        method: Method,
        path: &str,
        json: Option<&Value>,
    ) -> reqwest::Result<Response> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .header("VZ-M2M-Token", &self.session)
            .header("content-type", "application/json");
        if let Some(json) = json {
            request = request.body(json.to_string());
        }
        request.send().await
    }

    pub(super) async fn change(&self, path: &str, json: &Value) -> String {
        let response = self.call(Method::POST, path, Some(json)).await;
        text(&body_with_status(response, 200).await, "requestId")
    }

    pub(super) async fn register(&self, service: &str, url: &str) {
        let listener = json!({ "name": service, "url": url, "username": LISTENER_USERNAME,
            "password": LISTENER_PASSWORD });
        let path = format!("/m2m/v1/callbacks/{ACCOUNT}");
        let response = self.call(Method::POST, &path, Some(&listener)).await;
        assert_eq!(
            body_with_status(response, 200).await,
            json!({ "accountName": ACCOUNT, "serviceName": service })
        );
    }

    pub(super) async fn ledger(&self) -> Value {
        body_with_status(self.call(Method::GET, "/sandbox/ledger", None).await, 200).await
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

/// Returns the JSON of a response, which must have this status.
pub(super) async fn body_with_status(response: Response, status: u16) -> Value {
    let response_status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(response_status, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

pub(super) fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap().to_owned()
}

/// A callback listener that records callbacks and returns the given statuses, then 200.
pub(super) struct CallbackReceiver {
    pub(super) url: String,
    pub(super) received: mpsc::Receiver<ReceivedCallback>,
}

pub(super) struct ReceivedCallback {
    pub(super) path: String,
    /// Malformed JSON becomes a string.
    pub(super) body: Value,
}

#[derive(Clone)]
struct Recorder {
    sender: mpsc::Sender<ReceivedCallback>,
    statuses: Arc<Mutex<VecDeque<StatusCode>>>,
    /// Delays the response to the first callback.
    hold_first: Option<Arc<Notify>>,
}

impl CallbackReceiver {
    pub(super) async fn start(statuses: &[StatusCode], hold_first: Option<Arc<Notify>>) -> Self {
        let (sender, received) = mpsc::channel(1024);
        let recorder = Recorder {
            sender,
            statuses: Arc::new(Mutex::new(statuses.iter().copied().collect())),
            hold_first,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(record).with_state(recorder);
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, received }
    }

    pub(super) async fn next(&mut self) -> ReceivedCallback {
        let next = tokio::time::timeout(Duration::from_secs(10), self.received.recv());
        next.await.expect("timed out waiting for a callback").unwrap()
    }
}

async fn record(State(recorder): State<Recorder>, uri: Uri, body: String) -> StatusCode {
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    let is_first = body["callbackCount"] == 1;
    let callback = ReceivedCallback { path: uri.path().to_owned(), body };
    recorder.sender.send(callback).await.unwrap();
    if is_first && let Some(released) = &recorder.hold_first {
        released.notified().await;
    }
    let status = recorder.statuses.lock().unwrap().pop_front();
    status.unwrap_or(StatusCode::OK)
}

pub(super) fn esim_change(devices: usize) -> Value {
    let device = |serial: usize| {
        json!({ "deviceIds": [
            { "kind": "eid", "id": format!("890490320000010000000000{serial:08}") },
            { "kind": "iccid", "id": format!("891480000008{serial:08}") },
        ] })
    };
    json!({
        "devices": (0..devices).map(device).collect::<Vec<_>>(),
        "accountName": ACCOUNT,
        "servicePlan": "service plan name",
    })
}

/// Returns the example of the 5G Business Internet page.
pub(super) fn documented_five_g_change() -> Value {
    json!({
        "accountName": ACCOUNT,
        "servicePlan": "Name of the plan being changed to",
        "deviceListWithServiceAddress": [ {
            "deviceIds": [ { "id": "14-digit alphanumeric", "kind": "MEID" } ],
            "primaryPlaceOfUse": {
                "address": {
                    "addressLine1": "address first line",
                    "addressLine2": "address second line",
                    "city": "city name",
                    "state": "2-letter state ID (ISO 3166)",
                    "country": "2-letter country code (ISO 3166)",
                    "zip": "1234"
                },
                "customerName": { "firstName": "First Name", "lastName": "Last Name or Surname" }
            }
        } ],
        "currentServicePlan": "Name of the plan being changed from"
    })
}

/// Returns an identifier that selects a scenario, or none if its name is empty.
pub(super) fn identifier(scenario: &str, kind: &str, serial: usize) -> String {
    if scenario.is_empty() {
        return match kind {
            "eid" => format!("890490320000010000000000{serial:08}"),
            "iccid" => format!("891480000008{serial:08}"),
            "meid" => format!("A10000{serial:08X}"),
            _ => format!("214{serial:07}"),
        };
    }
    let all = scenarios();
    let listed = all
        .iter()
        .find(|listed| listed.name == scenario)
        .unwrap_or_else(|| panic!("no scenario {scenario}"));
    let prefix = listed.identifiers.iter().find(|prefix| prefix.kind == kind).unwrap();
    let digits = prefix.serial_digits;
    format!("{}{serial:0digits$X}", prefix.prefix)
}

/// Returns an eSIM change of devices with scenarios. The serials count up.
pub(super) fn esim_change_with_scenarios(scenarios: &[&str]) -> Value {
    let device = |(serial, scenario): (usize, &&str)| {
        json!({ "deviceIds": [
            { "kind": "eid", "id": identifier("", "eid", serial) },
            { "kind": "iccid", "id": identifier(scenario, "iccid", serial) },
        ] })
    };
    json!({
        "devices": scenarios.iter().enumerate().map(device).collect::<Vec<_>>(),
        "accountName": ACCOUNT,
        "servicePlan": "new plan",
    })
}

/// Returns a change of 5G devices with scenarios.
pub(super) fn five_g_change_with_scenarios(scenarios: &[&str]) -> Value {
    let mut change = documented_five_g_change();
    let place = change["deviceListWithServiceAddress"][0]["primaryPlaceOfUse"].clone();
    let device = |(serial, scenario): (usize, &&str)| {
        json!({
            "deviceIds": [{ "kind": "MEID", "id": identifier(scenario, "meid", serial) }],
            "primaryPlaceOfUse": place,
        })
    };
    change["deviceListWithServiceAddress"] = scenarios.iter().enumerate().map(device).collect();
    change["servicePlan"] = json!("NEWCODE");
    change
}
