//! The sandbox process, and a foreign client of the same account.

use std::{net::SocketAddr, process::Stdio};

use reqwest::{Client as HttpClient, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use super::planned_changes::{Operation, Overlap, PlannedChange};
use crate::support::{http::http_client, ledger::FOREIGN_PLAN, requests::ACCOUNT, wait::in_time};

/// Credentials of the UWS user.
pub const USERNAME: &str = "planted-uws-username";
pub const PASSWORD: &str = "planted-uws-password";

/// A sandbox process. Killed when dropped.
pub struct SandboxProcess {
    _child: Child,
    _log: Lines<BufReader<ChildStderr>>,
    pub address: SocketAddr,
}

/// A client that uses the same account without the gateway.
#[derive(Debug, Clone)]
pub struct ForeignClient {
    base: String,
    http: HttpClient,
}

// === impl SandboxProcess ===

impl SandboxProcess {
    /// Starts a sandbox. With an odd seed, the callback URL names the account.
    pub async fn start(seed: u64, callbacks: SocketAddr) -> Self {
        let account = if seed % 2 == 1 { format!("/accounts/{ACCOUNT}") } else { String::new() };
        let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
        command.arg("sandbox").env_clear().kill_on_drop(true);
        for (setting, value) in [
            ("sandbox.seed", seed.to_string()),
            ("sandbox.callback_url", format!("http://{callbacks}{account}/callbacks/{{service}}")),
            ("sandbox.listen", "127.0.0.1:0".into()),
            ("sandbox.order", "shuffled".into()),
            ("sandbox.failure_rate", "0.1".into()),
            ("sandbox.duplicate_rate", "0.1".into()),
            ("sandbox.lost_rate", "0.01".into()),
            ("sandbox.late_rate", "0.05".into()),
            ("sandbox.late_delay", "1s".into()),
            ("sandbox.interim_for", "300ms".into()),
            ("sandbox.early_rate", "0.02".into()),
            ("sandbox.malformed_rate", "0.01".into()),
            ("sandbox.slow_answer", "1s".into()),
            ("sandbox.resend_after", "300ms".into()),
            ("sandbox.callback_timeout", "1200ms".into()),
            ("telemetry.log_format", "json".into()),
        ] {
            command.arg(format!("--{setting}={value}"));
        }
        command
            .env("TSGW_SANDBOX__UWS_USERNAME", USERNAME)
            .env("TSGW_SANDBOX__UWS_PASSWORD", PASSWORD);
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        loop {
            let line = in_time(log.next_line()).await;
            let line = line.expect("readable").expect("the sandbox starts");
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["address"].as_str() {
                return Self {
                    _child: child,
                    address: address.parse().expect("an address"),
                    _log: log,
                };
            }
        }
    }

    /// Returns a foreign client that does not use the proxy.
    pub fn foreign_client(&self) -> ForeignClient {
        let http = http_client();
        ForeignClient { base: format!("http://{}/api", self.address), http }
    }
}

// === impl ForeignClient ===

impl ForeignClient {
    /// Revokes the access token of the application.
    pub async fn revoke_token(&self) {
        let token = self.token().await;
        let request = self.oauth("revoke", format!("grant_type=client_credentials&token={token}"));
        let response = request.send().await.expect("a response");
        assert!(response.status().is_success(), "{response:?}");
    }

    /// Makes a request for devices of a planned change.
    pub async fn change_same_devices(&self, planned: &PlannedChange, overlap: Overlap) {
        // Devices with a scenario are left out: it would affect other requests.
        let plain = |device: &&String| device.starts_with("8914") || device.starts_with("A1");
        let mut devices: Vec<String> = planned.devices.iter().filter(plain).cloned().collect();
        match overlap {
            Overlap::One => devices.truncate(1),
            Overlap::AllAndOne => {
                let more = devices[0].replacen("8914", "8915", 1);
                devices.push(more);
            }
        }
        let (path, body) = match planned.operation {
            Operation::Esim => ("devices/profile/actions/serviceplan", esim(&devices)),
            Operation::FiveGBi => ("devices/actions/plan", five_g_bi(&devices)),
        };
        // Retries, because the token can be revoked meanwhile.
        for _ in 0..10 {
            let token = self.token().await;
            let session = self.session(&token).await;
            let request = self.call(Method::POST, path, &token);
            let request = request.header("VZ-M2M-Token", session).json(&body);
            let response = request.send().await;
            if response.is_ok_and(|response| response.status().is_success()) {
                return;
            }
        }
        panic!("the foreign request for {} fails", planned.key);
    }

    async fn token(&self) -> String {
        let request = self.oauth("token", "grant_type=client_credentials".into());
        text(request, "access_token").await
    }

    fn oauth(&self, call: &str, form: String) -> RequestBuilder {
        let url = format!("{}/ts/v1/oauth2/{call}", self.base);
        let request = self.http.post(url).body(form);
        request
            .header("content-type", "application/x-www-form-urlencoded")
            .basic_auth("planted-app-key", Some("planted-app-secret"))
    }

    async fn session(&self, token: &str) -> String {
        let request = self.call(Method::POST, "session/login", token);
        let login = json!({"username": USERNAME, "password": PASSWORD});
        text(request.json(&login), "sessionToken").await
    }

    fn call(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let url = format!("{}/m2m/v1/{path}", self.base);
        self.http.request(method, url).bearer_auth(token)
    }
}

/// Returns a member of the response, or an empty text if the call is refused.
async fn text(request: RequestBuilder, member: &str) -> String {
    let response = request.send().await.expect("a response");
    let body: Value = response.json().await.unwrap_or_default();
    body[member].as_str().unwrap_or_default().to_owned()
}

fn esim(iccids: &[String]) -> Value {
    let devices = iccids.iter().map(|iccid| {
        json!({"deviceIds": [
            {"kind": "eid", "id": Operation::eid(iccid)},
            {"kind": "iccid", "id": iccid},
        ]})
    });
    json!({
        "devices": devices.collect::<Vec<_>>(),
        "accountName": ACCOUNT,
        "servicePlan": FOREIGN_PLAN,
    })
}

fn five_g_bi(meids: &[String]) -> Value {
    let devices = meids.iter().map(|meid| {
        json!({
            "deviceIds": [{"kind": "MEID", "id": meid}],
            "primaryPlaceOfUse": {
                "address": {
                    "addressLine1": "1 Main St", "city": "Town", "state": "MA",
                    "zip": "02110", "country": "USA",
                },
                "customerName": {"firstName": "A", "lastName": "B"},
            },
        })
    });
    json!({
        "deviceListWithServiceAddress": devices.collect::<Vec<_>>(),
        "accountName": ACCOUNT,
        "servicePlan": FOREIGN_PLAN,
    })
}
