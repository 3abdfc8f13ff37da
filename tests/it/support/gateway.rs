//! The real binary, started and ended as an operator or a crash would.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use thingspace_gateway::proto::gateway_service_client::GatewayServiceClient;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

pub type Client = GatewayServiceClient<Channel>;

/// What a test waits for at most: a hang fails instead of blocking the suite.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a gateway: settings as flags, and an own journal directory.
#[derive(Clone)]
pub struct Setup {
    sandbox: bool,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

/// A running gateway. Killed when dropped.
pub struct Gateway {
    child: Child,
    log: JoinHandle<String>,
    pub grpc: SocketAddr,
    pub callbacks: SocketAddr,
    pub admin: SocketAddr,
    pub sandbox: Option<SocketAddr>,
}

/// A journal's directory that outlives the processes that use it.
pub struct TestDir(TempDir);

// === impl Setup ===

impl Setup {
    /// `serve` against this ThingSpace, with all ports free and on loopback.
    pub fn serve(base_url: &str, directory: &TestDir) -> Self {
        let mut setup = Self::empty(false).set("journal.dir", &directory.path().to_string_lossy());
        setup = setup.set("thingspace.base_url", base_url);
        // No test waits for its turn unless it is about that.
        setup = setup
            .set("thingspace.changes_per_minute", "100000")
            .set("thingspace.lookups_per_minute", "100000");
        for (name, value) in [
            ("TSGW_THINGSPACE__APP_KEY", "planted-app-key"),
            ("TSGW_THINGSPACE__APP_SECRET", "planted-app-secret"),
            ("TSGW_THINGSPACE__UWS_USERNAME", "planted-uws-username"),
            ("TSGW_THINGSPACE__UWS_PASSWORD", "planted-uws-password"),
        ] {
            setup = setup.env(name, value);
        }
        setup
    }

    /// `serve --sandbox`, with all ports free.
    pub fn sandbox() -> Self {
        Self::empty(true)
    }

    fn empty(sandbox: bool) -> Self {
        let setup = Self {
            sandbox,
            settings: Vec::new(),
            environment: Vec::new(),
        };
        setup
            .set("grpc.listen", "127.0.0.1:0")
            .set("callbacks.listen", "127.0.0.1:0")
            .set("admin.listen", "127.0.0.1:0")
            .set("telemetry.log_format", "json")
    }

    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
        command.arg("serve").env_clear().kill_on_drop(true);
        if self.sandbox {
            command.arg("--sandbox");
        }
        for (key, value) in &self.settings {
            command.arg(format!("--{key}={value}"));
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts it and waits until it says where it listens.
    pub async fn start(&self) -> Gateway {
        match self.try_start().await {
            Ok(gateway) => gateway,
            Err((code, log)) => panic!("the gateway did not start: {code:?} {log}"),
        }
    }

    /// The exit code and the log of a start that is refused.
    pub async fn refused(&self) -> (Option<i32>, String) {
        match self.try_start().await {
            Ok(gateway) => panic!("it starts: {}", gateway.kill().await),
            Err(refused) => refused,
        }
    }

    /// Starts it and waits until it says where it listens, or has ended.
    pub async fn try_start(&self) -> Result<Gateway, (Option<i32>, String)> {
        let mut command = self.command();
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut early = String::new();
        let mut addresses = Vec::new();
        let wanted = if self.sandbox { 4 } else { 3 };
        while addresses.len() < wanted {
            let line = timeout(TEST_TIMEOUT, lines.next_line())
                .await
                .expect("in time");
            let Some(line) = line.expect("readable") else {
                let status = timeout(TEST_TIMEOUT, child.wait()).await.expect("it ends");
                return Err((status.expect("waited").code(), early));
            };
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["address"].as_str() {
                addresses.push(address.parse().expect("an address"));
            }
            early.push_str(&line);
            early.push('\n');
        }
        // The log is read to its end, so that the process never waits for us.
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                early.push_str(&line);
                early.push('\n');
            }
            early
        });
        Ok(Gateway {
            child,
            log,
            grpc: addresses[0],
            callbacks: addresses[1],
            admin: addresses[2],
            sandbox: addresses.get(3).copied(),
        })
    }
}

// === impl Gateway ===

impl Gateway {
    /// A client on a connection of its own.
    pub async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("a URI");
        let channel = endpoint
            .connect()
            .await
            .expect("the gateway takes connections");
        GatewayServiceClient::new(channel).max_decoding_message_size(64 << 20)
    }

    /// Where ThingSpace would post a callback of this service.
    pub fn callback_url(&self, service: &str) -> String {
        format!("http://{}/callbacks/{service}", self.callbacks)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// `kill -9`, and the log that it left.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.expect("it ran");
        timeout(TEST_TIMEOUT, self.log)
            .await
            .expect("in time")
            .expect("read")
    }

    /// SIGTERM; its exit code, and its log.
    pub async fn terminate(self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        self.wait_with_log().await
    }

    /// Its exit code, and its log, once it has ended.
    pub async fn wait_with_log(mut self) -> (Option<i32>, String) {
        let status = timeout(TEST_TIMEOUT, self.child.wait())
            .await
            .expect("it ends");
        let log = timeout(TEST_TIMEOUT, self.log)
            .await
            .expect("in time")
            .expect("read");
        (status.expect("waited").code(), log)
    }

    /// Waits for its end by itself.
    pub async fn wait(mut self) -> Option<i32> {
        let status = timeout(TEST_TIMEOUT, self.child.wait())
            .await
            .expect("it ends");
        status.expect("waited").code()
    }

    /// Its resident memory, in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(which));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.expect(which).parse::<u64>().expect("a number") * 1024
    }
}

// === impl Directory ===

impl TestDir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
