//! A listener on a real port with a real journal.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    background::{FileReloader, forwarder_id},
    callbacks::server::CallbackListener,
    config::{Config, Secret, Sources},
    domain::{
        clock::{Clock, Timestamp},
        newtypes::RequestId,
    },
    journal::{
        Cursor, Event, EventPayload, EventQuery, Journal, WatchTarget,
        sqlite::{self, SqliteOptions},
    },
    telemetry::{Instruments, RejectionReason, Telemetry},
};

pub(super) const SECRET: &str = "path-secret-0123456789";
pub(super) const MAX_CONNECTIONS: usize = 100;
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Verizon's example of an eSIM callback, which has no credentials.
pub(super) const ESIM: &str = r#"{"requestId":"d1f08526-5443-4054-9a29-4456490ea9f8",
 "deviceIds":[{"id":"89049032000001000000000000000001","kind":"Eid"},
  {"id":"990013907835573","kind":"Imei"},{"id":"15555551234","kind":"msisdn"},
  {"id":"89148000000800139708","kind":"Iccid"}],
 "deviceResponse":{"deviceProfileResponse":{"deviceIdentifierCollection":[
  {"id":"89049032000001000000000000000001","kind":"Eid"}],
  "state":"ACTIVE","profileStatus":"ENABLE","profileRole":"LOCAL"}},
 "status":"SUCCESS","callbackCount":1,"maxCallbackThreshold":4}"#;

/// Verizon's example of a 5G BI callback, with credentials.
pub(super) fn five_g(username: &str, password: &str) -> String {
    format!(
        r#"{{"username":"{username}","password":"{password}",
 "requestId":"c8de7c1d-59b9-4cf3-b969-db76cb2ce509","deviceIds":[{{"id":"5555551234","kind":"mdn"}}],
 "deviceResponse":{{"changeServicePlanResponse":{{"effectiveDate":"5/31/2018 12:00:00 AM"}}}}}}"#
    )
}

pub(super) struct NoonClock;

impl Clock for NoonClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(43_200_000_000)
    }
}

/// The default settings: neither path secret nor credentials.
pub(super) fn open_config() -> Config {
    Config::load(&Sources::default()).unwrap().config
}

/// Settings with current and previous credentials.
pub(super) fn config_with_credentials() -> Config {
    let mut config = open_config();
    config.callbacks.username = secret("user");
    config.callbacks.password = secret("pw-now");
    config.callbacks.previous_username = secret("user");
    config.callbacks.previous_password = secret("pw-before");
    config
}

pub(super) fn secret(value: &str) -> Option<Secret> {
    Some(Secret::new(value))
}

pub(super) struct CallbackHarness {
    pub(super) address: SocketAddr,
    telemetry: Telemetry,
    pub(super) stop: CancellationToken,
    pub(super) served: JoinHandle<()>,
    journal: Arc<dyn Journal>,
    directory: TempDir,
    http: reqwest::Client,
}

impl CallbackHarness {
    pub(super) async fn start(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = sqlite::open(&options(&directory)).unwrap();
        let telemetry = Telemetry::metrics_only().unwrap();
        let mut files = FileReloader::default();
        let listener = CallbackListener::new(
            &config,
            journal.clone(),
            None,
            Arc::new(NoonClock),
            Arc::new(NoonClock),
            telemetry.instruments(),
            &mut files,
        );
        let listener = listener.unwrap();
        let (address, stop, served) = serve(listener).await;
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(files.run()).await });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, telemetry, stop, served, journal, directory, http }
    }

    /// Id of this listener in the loop header.
    pub(super) fn forwarder_id(&self) -> String {
        forwarder_id(&*self.journal)
    }

    /// Number of callbacks with an outcome.
    pub(super) fn counted(&self, outcome: &str) -> u64 {
        counted(&self.telemetry, outcome)
    }

    /// Number of callbacks that were rejected for a reason.
    pub(super) fn refused(&self, refusal: RejectionReason) -> u64 {
        self.telemetry.sample(&format!(
            "thingspace_gateway_callbacks_total{{thingspace_gateway_outcome=\"rejected\",\
             thingspace_gateway_reason=\"{}\"}}",
            refusal.name()
        ))
    }

    /// Number of callbacks that were quarantined for a reason.
    pub(super) fn quarantined(&self, reason: RejectionReason) -> u64 {
        self.telemetry.sample(&format!(
            "thingspace_gateway_callbacks_total{{thingspace_gateway_outcome=\"quarantined\",\
             thingspace_gateway_reason=\"{}\"}}",
            reason.name()
        ))
    }

    /// Number of callbacks from an address that is not listed.
    pub(super) fn unlisted(&self) -> u64 {
        self.telemetry.sample("thingspace_gateway_callbacks_outside_allow_cidrs_total")
    }

    pub(super) fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("http://{}{path}", self.address))
    }

    /// Sends a callback. Returns the status and the `error`, if any.
    pub(super) async fn send(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, String) {
        let response = self.request(path).body(body).send().await.unwrap();
        let status = response.status();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let error = body["error"].as_str().unwrap_or_default().to_owned();
        (status, error)
    }

    /// Sends a callback. Returns the status.
    pub(super) async fn status(&self, path: &str, body: impl Into<reqwest::Body>) -> u16 {
        self.send(path, body).await.0.as_u16()
    }

    /// Writes some bytes and reads until the listener closes the connection.
    pub(super) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Returns the events of a request after the journal was reopened.
    pub(super) async fn events_after_restart(self, request: &str) -> Vec<Event> {
        self.stop.cancel();
        self.served.await.unwrap();
        self.journal.close().await;
        drop(self.journal);
        let journal = sqlite::open(&options(&self.directory)).unwrap();
        let target = WatchTarget::Request(RequestId::parse(request).unwrap());
        let query = EventQuery { raw_json: true, ..EventQuery::new(Cursor::START, 100) };
        journal.events(target, query).await.unwrap().events
    }
}

/// Returns the stored body of a result.
pub(super) fn raw_json(event: &Event) -> &str {
    match &event.payload {
        EventPayload::Result(result) => std::str::from_utf8(result.raw_json()).unwrap(),
        EventPayload::State(_) => "",
    }
}

/// Number of callbacks with an outcome.
pub(super) fn counted(telemetry: &Telemetry, outcome: &str) -> u64 {
    telemetry.sample(&format!(
        "thingspace_gateway_callbacks_total{{thingspace_gateway_outcome=\"{outcome}\"}}"
    ))
}

/// Starts a listener on a free port of the loopback address.
pub(super) async fn serve(
    listener: CallbackListener,
) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(listener.serve(tcp, MAX_CONNECTIONS, stop.clone(), GRACE));
    (address, stop, served)
}

fn options(directory: &TempDir) -> SqliteOptions {
    SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    }
}
