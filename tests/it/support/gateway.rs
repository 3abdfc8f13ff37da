//! Starts and stops the real binary.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use thingspace_gateway::proto::gateway_service_client::GatewayServiceClient;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use super::{outputs::Outputs, secrets::Secrets, wait::in_time};

pub type Client = GatewayServiceClient<Channel>;

/// A ThingSpace URL that refuses connections.
pub const UNREACHABLE_URL: &str = "http://127.0.0.1:9/api";

/// Settings of a gateway process.
#[derive(Clone)]
pub struct Setup {
    sandbox: bool,
    /// Hard limit of open files.
    max_files: Option<usize>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    /// Planted texts that the journal keeps on purpose.
    stored: Vec<String>,
    /// Keeps a directory until the processes that use it have ended.
    directory: Option<TestDir>,
}

/// A running gateway. Killed when dropped.
///
/// A test fails if its gateway writes a planted text: see [`super::secrets`]. Each line of the log is searched, and at the
/// end the last metrics, the audit log, the journal and the spool.
pub struct Gateway {
    child: Child,
    /// `None` once the process has ended and its outputs were searched.
    outputs: Option<Outputs>,
    pub grpc: SocketAddr,
    pub callbacks: SocketAddr,
    pub admin: SocketAddr,
    /// `None` unless `console.listen` is set.
    pub console: Option<SocketAddr>,
    pub sandbox: Option<SocketAddr>,
}

/// The end of a gateway process.
#[derive(Debug)]
pub struct GatewayExit {
    pub code: Option<i32>,
    pub log: String,
}

/// Copies the files of a journal, without its shared memory and sockets.
pub fn copy_journal(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let is_file = entry.file_type().expect("a type").is_file();
        if is_file && !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// A temporary directory that outlives the processes that use it.
#[derive(Clone)]
pub struct TestDir(Arc<TempDir>);

// === impl Setup ===

impl Setup {
    /// `serve` with this ThingSpace, on free loopback ports.
    pub fn serve(base_url: &str, directory: &TestDir) -> Self {
        let mut setup = Self::empty(false).set("journal.dir", &directory.path().to_string_lossy());
        setup.directory = Some(directory.clone());
        setup = setup.set("thingspace.base_url", base_url);
        // Rate limits delay only the tests of rate limits.
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

    /// Keeps the journal in this PostgreSQL database, whose server does not sync commits.
    pub fn postgres(self, url: &str) -> Self {
        self.set("journal.engine", "postgres")
            .set("journal.durability", "relaxed")
            .env("TSGW_JOURNAL__URL", url)
    }

    /// `serve --sandbox`, on free loopback ports.
    pub fn sandbox() -> Self {
        Self::empty(true)
    }

    fn empty(sandbox: bool) -> Self {
        let setup = Self {
            sandbox,
            max_files: None,
            settings: Vec::new(),
            environment: Vec::new(),
            stored: Vec::new(),
            directory: None,
        };
        setup
            .set("grpc.listen", "127.0.0.1:0")
            .set("callbacks.listen", "127.0.0.1:0")
            .set("admin.listen", "127.0.0.1:0")
            .set("telemetry.log_format", "json")
            .set("telemetry.log_filter", "debug")
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

    /// Permits the files of the gateway to contain this text, although it contains a planted one.
    pub fn stores(mut self, text: &str) -> Self {
        self.stored.push(text.into());
        self
    }

    /// Breaks one rule, in a build with the feature `failpoints`.
    pub fn failpoint(self, name: &str) -> Self {
        self.env("FAILPOINTS", &format!("{name}=return"))
    }

    /// Sets the hard limit of open files.
    pub fn max_files(mut self, max_files: usize) -> Self {
        self.max_files = Some(max_files);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self
    }

    pub fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_thingspace-gateway");
        let mut command = match self.max_files {
            Some(files) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {files}; exec {program} \"$@\""), "sh"]);
                shell
            }
            None => Command::new(program),
        };
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

    /// Starts a gateway and waits until it listens.
    pub async fn start(&self) -> Gateway {
        match self.try_start().await {
            Ok(gateway) => gateway,
            Err(exit) => panic!("the gateway did not start: {exit:?}"),
        }
    }

    /// Returns the exit code and the log of a start that must fail.
    pub async fn start_error(&self) -> GatewayExit {
        match self.try_start().await {
            Ok(mut gateway) => panic!("it starts: {}", gateway.kill().await),
            Err(exit) => exit,
        }
    }

    /// Starts a gateway and waits until it listens or has exited.
    pub async fn try_start(&self) -> Result<Gateway, GatewayExit> {
        let (log, stderr) = io::pipe().expect("a pipe");
        let mut command = self.command();
        command.stderr(stderr).stdout(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        // Only the child has the other end of the pipe now.
        drop(command);
        let settings = self.settings.iter().chain(&self.environment);
        let settings = settings.map(|(name, value)| (name.as_str(), value.as_str()));
        let secrets = Secrets::of_settings(settings.clone()).except_stored(&self.stored);
        let (outputs, mut lines) = Outputs::read(log, secrets, settings, self.directory.clone());
        let mut addresses = Vec::new();
        let has_console = self.settings.iter().any(|(key, _)| key == "console.listen");
        let expected = 3 + usize::from(has_console) + usize::from(self.sandbox);
        while addresses.len() < expected {
            let Some(line) = in_time(lines.recv()).await else {
                let status = in_time(child.wait()).await;
                let code = status.expect("waited").code();
                return Err(GatewayExit { code, log: outputs.check() });
            };
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["address"].as_str() {
                addresses.push(address.parse().expect("an address"));
            }
        }
        Ok(Gateway {
            child,
            outputs: Some(outputs),
            grpc: addresses[0],
            callbacks: addresses[1],
            admin: addresses[2],
            console: addresses.get(3).copied().filter(|_| has_console),
            sandbox: addresses.get(3 + usize::from(has_console)).copied(),
        })
    }
}

// === impl Gateway ===

impl Gateway {
    /// Returns a client with its own connection.
    pub async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("a URI");
        let channel = endpoint.connect().await.expect("a connection");
        GatewayServiceClient::new(channel).max_decoding_message_size(64 << 20)
    }

    /// URL of the callbacks of this service.
    pub fn callback_url(&self, service: &str) -> String {
        format!("http://{}/callbacks/{service}", self.callbacks)
    }

    /// URL of the callbacks of this service that names their account.
    pub fn account_callback_url(&self, account: &str, service: &str) -> String {
        format!("http://{}/accounts/{account}/callbacks/{service}", self.callbacks)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// Kills the process at once, and returns its log.
    pub async fn kill(&mut self) -> String {
        self.child.kill().await.expect("it ran");
        self.wait().await.log
    }

    /// Sends SIGTERM and returns the exit code and the log.
    pub async fn terminate(&mut self) -> GatewayExit {
        self.read_last_metrics();
        self.signal(Signal::SIGTERM);
        self.wait().await
    }

    /// Waits until the process has exited, and returns the exit code and the log.
    pub async fn wait(&mut self) -> GatewayExit {
        let status = in_time(self.child.wait()).await.expect("waited");
        let outputs = self.outputs.take().expect("waited for once");
        GatewayExit { code: status.code(), log: outputs.check() }
    }

    /// Resident memory in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Peak of the resident memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Processor time that the process has used. Its resolution is 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        // The fields 14 and 15 of the line: utime and stime, in hundredths of a second.
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| Duration::from_millis(10) * ticks.parse::<u32>().expect("a number")).sum()
    }

    fn read_last_metrics(&mut self) {
        if let Some(outputs) = &mut self.outputs {
            outputs.read_metrics(self.admin);
        }
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.expect(name).parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.read_last_metrics();
        let Some(outputs) = self.outputs.take() else { return };
        // Fails if it has exited.
        let _killed = self.child.start_kill();
        outputs.check();
    }
}

// === impl TestDir ===

impl TestDir {
    pub fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().expect("a temporary directory")))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
