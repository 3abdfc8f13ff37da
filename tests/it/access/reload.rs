//! Certificates, authorities, keys and the policy are replaced while calls are made.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use thingspace_gateway::proto::{
    ListChangesRequest, gateway_service_client::GatewayServiceClient, watch_account_response::Event,
};
use tokio::{task::JoinHandle, time::Instant};
use tonic::Status;

use super::{
    ACCOUNT_A, Trust,
    callers::{Connection, Credentials},
    streams::AccountWatch,
};
use crate::support::{
    authority::{Authority, ClientName},
    gateway::{Gateway, Setup, TestDir, UNREACHABLE_URL},
    report,
    requests::{deliver, esim_callback, parse_error},
    tokens::{Issuer, key_set},
    wait::{eventually, in_time},
};

const POLICY: &str = include_str!("../../access/policy.toml");
const READER: ClientName = ClientName::Dns("reader.test.example");

async fn list(connection: &Connection) -> Result<(), Status> {
    let mut client = GatewayServiceClient::new(connection.clone());
    let request = ListChangesRequest { account_name: ACCOUNT_A.into(), ..Default::default() };
    in_time(client.list_changes(request)).await.map(|_| ())
}

/// Reason of the error of a call; empty if the call succeeds.
async fn refusal(connection: &Connection) -> String {
    list(connection).await.err().map_or_else(String::new, |status| parse_error(&status).reason)
}

/// Calls that every version of the policy permits.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(connections: Vec<Connection>) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = connections.into_iter().map(|connection| {
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(SeqCst) {
                    errors.extend(list(&connection).await.err().map(|status| status.to_string()));
                    calls.fetch_add(1, SeqCst);
                }
                errors
            })
        });
        Self { tasks: tasks.collect(), stop, calls }
    }

    /// Waits until each connection has made further calls.
    async fn continues(&self) {
        let target = self.calls.load(SeqCst) + 50;
        eventually("calls continue", async || self.calls.load(SeqCst) > target).await;
    }

    async fn stop(self) {
        self.continues().await;
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            assert_eq!(task.await.expect("no panic"), Vec::<String>::new());
        }
        report(format!("{} calls succeeded", self.calls.load(SeqCst)));
    }
}

async fn connect(credentials: Credentials, gateway: &Gateway, trust: &Trust) -> Connection {
    credentials.connect(gateway, trust).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_and_policy_are_replaced_under_load_without_a_failed_call_and_removed_callers_lose_their_streams()
 {
    let trust = Trust::new(POLICY);
    let directory = TestDir::new();
    let gateway = trust.configure(Setup::serve(UNREACHABLE_URL, &directory)).start().await;
    let (new_clients, second) = (Authority::new("new clients"), Issuer::new("second"));
    let certificate = |authority| Credentials::certificate(authority, &READER);
    trust.files.write_client_cas(&[&trust.clients, &new_clients]);
    trust.files.replace("jwks.json", &key_set(&[&trust.issuer, &second]));
    let with_new_ca = async || certificate(&new_clients).connect(&gateway, &trust).await;
    eventually("the new authority is trusted", async || match with_new_ca().await {
        Some(connection) => list(&connection).await.is_ok(),
        None => false,
    })
    .await;
    let by_second_key = connect(Credentials::token(&second.token("admin")), &gateway, &trust).await;
    eventually("the new key is trusted", async || list(&by_second_key).await.is_ok()).await;
    // Permitted before and after each replacement, on connections that stay open.
    let load = Load::start(vec![
        with_new_ca().await.expect("a connection"),
        by_second_key,
        connect(Credentials::of("mesh-fleet", &trust), &gateway, &trust).await,
    ]);
    let mut kept = AccountWatch::open(&with_new_ca().await.expect("a connection"), "").await;

    // An authority.
    let removed = connect(certificate(&trust.clients), &gateway, &trust).await;
    let mut watch = AccountWatch::open(&removed, "").await;
    load.continues().await;
    let begin = Instant::now();
    trust.files.write_client_cas(&[&new_clients]);
    watch.read_to_end().await;
    report(format!("streams of a removed authority end after {:?}", begin.elapsed()));
    load.continues().await;

    // A key of the issuer.
    let removed = connect(Credentials::token(&trust.issuer.token("fleet")), &gateway, &trust).await;
    let mut watch = AccountWatch::open(&removed, "").await;
    let begin = Instant::now();
    trust.files.replace("jwks.json", &key_set(&[&second]));
    watch.read_to_end().await;
    report(format!("streams of a removed key end after {:?}", begin.elapsed()));
    assert_eq!(refusal(&removed).await, "UNAUTHENTICATED");
    load.continues().await;

    // A caller.
    let stranger = "[[caller]]\nname = \"temporary\"\nidentities = [\"jwt:temporary\"]\n\
                    [[caller.allow]]\npermissions = [\"watch\", \"list\"]\naccounts = [\"*\"]\n";
    let removed = connect(Credentials::token(&second.token("temporary")), &gateway, &trust).await;
    assert_eq!(refusal(&removed).await, "PERMISSION_DENIED");
    trust.files.replace("policy.toml", &format!("{POLICY}\n{stranger}"));
    eventually("the caller is permitted", async || list(&removed).await.is_ok()).await;
    let mut watch = AccountWatch::open(&removed, "").await;
    // A bad policy changes nothing.
    trust.files.replace("policy.toml", "[[caller]]\nname = 7\n");
    load.continues().await;
    let begin = Instant::now();
    trust.files.replace("policy.toml", POLICY);
    watch.read_to_end().await;
    report(format!("streams of a removed caller end after {:?}", begin.elapsed()));
    assert_eq!(refusal(&removed).await, "PERMISSION_DENIED");

    // The certificate of the server.
    trust.files.write_server(&trust.servers.issue());
    load.stop().await;
    // The stream of a caller that stayed is open: it has a new result.
    let url = gateway.account_callback_url(ACCOUNT_A, "DeviceProfileService");
    deliver(&url, &esim_callback("request", 1)).await;
    assert!(matches!(kept.next().await, Ok(Event::DeviceResult(_))));
}
