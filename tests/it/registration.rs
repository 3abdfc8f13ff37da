//! Registration of the callback listener at the sandbox, by the modes of `callbacks.register`.

use serde_json::{Value, json};
use thingspace_gateway::{
    config::{Config, Sources},
    proto::{
        CallbackRegistration, GetStatusRequest, operator_service_client::OperatorServiceClient,
    },
};
use thingspace_sandbox::Sandbox;
use tokio::task::JoinHandle;

use crate::{
    postgres::cluster::Cluster,
    support::{
        gateway::{Gateway, GatewayExit, Setup, TestDir, UNREACHABLE_URL},
        http::{http_client, read_metrics, readiness},
        requests::ACCOUNT,
        wait::{eventually, eventually_some, in_time},
    },
};

const SECRET: &str = "planted-path-secret";
const OLD: &str = "https://old.example.com:9002/hook/planted-token";
const CARRIER: &str = "CarrierService";
const PROFILE: &str = "DeviceProfileService";

/// A listener that is registered at the sandbox.
#[derive(Debug, PartialEq, Eq)]
struct RegisteredListener {
    service: String,
    url: String,
    username: String,
}

/// A sandbox that outlives gateways, and the session of another client.
struct SandboxServer {
    base_url: String,
    client: reqwest::Client,
    token: String,
    session: String,
    serving: JoinHandle<()>,
}

impl SandboxServer {
    async fn start() -> Self {
        let config = Config::load(&Sources::default()).unwrap().config;
        let sandbox = Sandbox::bind(config.sandbox).await.unwrap();
        let base_url = sandbox.base_url().to_string();
        let serving =
            tokio::spawn(async move { sandbox.run(std::future::pending()).await.unwrap() });
        let client = http_client();
        let token_request = client
            .post(format!("{base_url}/ts/v1/oauth2/token"))
            .basic_auth("key", Some("secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials");
        let token_response = json_of(token_request.send().await.unwrap()).await;
        let token = token_response["access_token"].as_str().unwrap().to_owned();
        let login = client
            .post(format!("{base_url}/m2m/v1/session/login"))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(json!({"username": "other", "password": "secret"}).to_string());
        let login_response = json_of(login.send().await.unwrap()).await;
        let session = login_response["sessionToken"].as_str().unwrap().to_owned();
        Self { base_url, client, token, session, serving }
    }

    fn authenticated(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request
            .bearer_auth(&self.token)
            .header("VZ-M2M-Token", &self.session)
            .header("content-type", "application/json")
    }

    fn url(&self) -> String {
        format!("{}/m2m/v1/callbacks/{ACCOUNT}", self.base_url)
    }

    async fn register(&self, service: &str, url: &str) {
        let body = json!({"name": service, "url": url, "username": "old", "password": "older"});
        let request = self.client.post(self.url()).body(body.to_string());
        let response = self.authenticated(request).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }

    /// Returns the listeners, sorted by service.
    async fn registered(&self) -> Vec<RegisteredListener> {
        let request = self.authenticated(self.client.get(self.url()));
        let body = request.send().await.unwrap().text().await.unwrap();
        let listed: Vec<Value> =
            if body.is_empty() { Vec::new() } else { serde_json::from_str(&body).unwrap() };
        let text = |listener: &Value, name| listener[name].as_str().unwrap_or_default().to_owned();
        listed
            .iter()
            .map(|listener| RegisteredListener {
                service: text(listener, "serviceName"),
                url: text(listener, "url"),
                username: text(listener, "username"),
            })
            .collect()
    }

    fn setup(&self, directory: &TestDir, register: &str) -> Setup {
        Setup::serve(&self.base_url, directory)
            .set("thingspace.accounts", ACCOUNT)
            .set("callbacks.public_url", "https://callbacks.example.com:9001")
            .set("callbacks.register", register)
            .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
            .env("TSGW_CALLBACKS__USERNAME", "planted-user")
            .env("TSGW_CALLBACKS__PASSWORD", "planted-password")
    }
}

impl Drop for SandboxServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn expected_registration(service: &str) -> RegisteredListener {
    let url = format!(
        "https://callbacks.example.com:9001/accounts/{ACCOUNT}/callbacks/{service}/{SECRET}"
    );
    RegisteredListener { service: service.into(), url, username: "planted-user".into() }
}

fn foreign_registration(service: &str) -> RegisteredListener {
    RegisteredListener { service: service.into(), url: OLD.into(), username: "old".into() }
}

/// Waits until the gauge counts this number of services in a state, and returns all metrics.
async fn wait_for_gauge(gateway: &Gateway, state: &str, services: u64) -> String {
    let is_gauge = |line: &str| {
        line.starts_with("thingspace_gateway_registrations{")
            && line.contains(&format!("thingspace_gateway_state=\"{state}\""))
            && line.ends_with(&format!(" {services}"))
    };
    eventually_some("the gauge of listeners changes", async || {
        Some(read_metrics(gateway).await).filter(|metrics| metrics.lines().any(is_gauge))
    })
    .await
}

fn lines<'l>(log: &'l str, message: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(message)).collect()
}

/// Fails if the output contains a secret of the gateway or of another client.
fn assert_no_secrets(text: &str) {
    for secret in [SECRET, "planted-token", "planted-user", "planted-password", "older"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Returns the registrations, once they were checked.
async fn checked(gateway: &Gateway) -> Vec<CallbackRegistration> {
    eventually_some("the registrations are checked", async || {
        let url = format!("http://{}", gateway.grpc);
        let mut operator = OperatorServiceClient::connect(url).await.ok()?;
        let status = operator.get_status(GetStatusRequest {}).await.ok()?.into_inner();
        let is_checked = |registration: &CallbackRegistration| registration.check_time.is_some();
        Some(status.registrations).filter(|all| !all.is_empty() && all.iter().all(is_checked))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_on_postgres_returns_the_registrations_that_the_leader_has_checked() {
    let configure = |setup: Setup| {
        setup
            .set("thingspace.accounts", ACCOUNT)
            .set("callbacks.public_url", "https://callbacks.example.com:9001")
            .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
    };
    let cluster = Cluster::start_with(2, configure).await;
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    let registrations = checked(&a.gateway).await;
    assert_eq!(registrations.len(), 2);
    assert_eq!(checked(&b.gateway).await, registrations);
}

#[tokio::test]
async fn never_reports_foreign_registrations_and_changes_nothing() {
    let platform = SandboxServer::start().await;
    platform.register(CARRIER, OLD).await;
    let directory = TestDir::new();
    let mut gateway = platform.setup(&directory, "never").start().await;

    let metrics = wait_for_gauge(&gateway, "other_url", 1).await;
    wait_for_gauge(&gateway, "missing", 1).await;
    wait_for_gauge(&gateway, "unknown", 0).await;
    assert_eq!(readiness(&gateway).await, 200, "foreign registrations");
    assert_eq!(platform.registered().await, [foreign_registration(CARRIER)]);
    let [carrier, profile] = &checked(&gateway).await[..] else { panic!("two services") };
    assert_eq!((carrier.service.as_str(), carrier.state.as_str()), (CARRIER, "other_url"));
    assert_eq!((profile.service.as_str(), profile.state.as_str()), (PROFILE, "missing"));
    for registration in [carrier, profile] {
        assert_eq!(
            (registration.account_name.as_str(), registration.register_policy.as_str()),
            (ACCOUNT, "never")
        );
        assert_eq!(registration.last_error, "");
        assert_no_secrets(&format!("{registration:?}"));
    }

    let GatewayExit { code, log } = gateway.terminate().await;
    assert_eq!(code, Some(0));
    let drift = lines(&log, "another callback listener is registered");
    assert_eq!(drift.len(), 1, "{log}");
    assert!(drift[0].contains("https://old.example.com:9002\""), "{log}");
    assert_eq!(lines(&log, "no callback listener is registered").len(), 1);
    assert_no_secrets(&log);
    assert_no_secrets(&metrics);
}

#[tokio::test]
async fn if_unclaimed_registers_only_services_without_a_listener() {
    let platform = SandboxServer::start().await;
    platform.register(CARRIER, OLD).await;
    let directory = TestDir::new();
    let mut gateway = platform.setup(&directory, "if_unclaimed").start().await;

    wait_for_gauge(&gateway, "registered", 1).await;
    wait_for_gauge(&gateway, "other_url", 1).await;
    assert_eq!(
        platform.registered().await,
        [foreign_registration(CARRIER), expected_registration(PROFILE)]
    );
    let log = gateway.terminate().await.log;
    assert_no_secrets(&log);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_overwrites_another_listener_without_a_gap_and_stores_its_url() {
    let platform = SandboxServer::start().await;
    platform.register(CARRIER, OLD).await;
    platform.register(PROFILE, OLD).await;
    let directory = TestDir::new();
    // The journal keeps the URL, so that the other client can get its registration back.
    let setup = platform.setup(&directory, "replace").stores(OLD);
    let starting = {
        let setup = setup.clone();
        tokio::spawn(async move { setup.start().await })
    };

    // At no time is a service without a listener.
    let gap_free = async {
        loop {
            let registered = platform.registered().await;
            let services: Vec<&str> =
                registered.iter().map(|listener| listener.service.as_str()).collect();
            assert_eq!(services, [CARRIER, PROFILE]);
            if registered == [expected_registration(CARRIER), expected_registration(PROFILE)] {
                return;
            }
        }
    };
    in_time(gap_free).await;
    let mut gateway = starting.await.unwrap();
    let metrics = wait_for_gauge(&gateway, "registered", 2).await;
    let attempts = "thingspace_gateway_registration_attempts_total{";
    let mut attempted = metrics.lines().filter(|line| line.starts_with(attempts));
    let line = attempted.find(|line| line.contains("\"replaced\"")).unwrap();
    assert!(line.ends_with(" 2"), "{line}");

    let log = gateway.terminate().await.log;
    let displaced = lines(&log, "replaced the registration of another callback listener");
    assert_eq!(displaced.len(), 2, "{log}");
    assert!(displaced[0].contains("https://old.example.com:9002\""), "{log}");
    assert_no_secrets(&log);
    assert_no_secrets(&metrics);
    let journal = rusqlite::Connection::open(directory.join("journal.db")).unwrap();
    let kept: String = journal
        .query_row(
            "SELECT CAST(value AS TEXT) FROM meta WHERE name = ?1",
            [format!("kv.displaced.{ACCOUNT}.{CARRIER}")],
            |row| row.get(0),
        )
        .unwrap();
    assert!(kept.contains(OLD), "{kept}");

    // The next start finds its own registrations, and registers nothing.
    let mut gateway = setup.start().await;
    let metrics = wait_for_gauge(&gateway, "registered", 2).await;
    let mut attempted = metrics.lines().filter(|line| line.starts_with(attempts));
    assert!(attempted.all(|line| line.ends_with(" 0")), "{metrics}");
    gateway.terminate().await;
}

#[tokio::test]
async fn replace_updates_the_credentials_of_its_own_registrations() {
    let platform = SandboxServer::start().await;
    for service in [CARRIER, PROFILE] {
        platform.register(service, &expected_registration(service).url).await;
    }
    let directory = TestDir::new();
    let mut gateway = platform.setup(&directory, "if_unclaimed").start().await;
    wait_for_gauge(&gateway, "wrong_credentials", 2).await;
    gateway.terminate().await;
    let mut gateway = platform.setup(&directory, "replace").start().await;
    wait_for_gauge(&gateway, "registered", 2).await;
    assert_eq!(
        platform.registered().await,
        [expected_registration(CARRIER), expected_registration(PROFILE)]
    );
    let log = gateway.terminate().await.log;
    assert!(
        lines(&log, "replaced the registration").is_empty(),
        "only its own registrations: {log}"
    );
}

#[tokio::test]
async fn a_failed_listing_is_logged_and_changes_nothing() {
    let directory = TestDir::new();
    let platform = SandboxServer::start().await;
    platform.register(CARRIER, OLD).await;
    let setup = platform.setup(&directory, "replace").set("thingspace.base_url", UNREACHABLE_URL);
    let mut gateway = setup.start().await;
    eventually("the listing fails", async || read_metrics(&gateway).await.contains("\"not_sent\""))
        .await;
    wait_for_gauge(&gateway, "unknown", 2).await;
    assert_eq!(readiness(&gateway).await, 200);
    for registration in checked(&gateway).await {
        assert_eq!(
            (registration.state.as_str(), registration.last_error.is_empty()),
            ("unknown", false)
        );
    }
    assert_eq!(platform.registered().await, [foreign_registration(CARRIER)]);
    let log = gateway.terminate().await.log;
    assert!(lines(&log, "listeners are not known").len() <= 1, "{log}");
}
