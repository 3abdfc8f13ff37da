//! A PostgreSQL server.

use std::{
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    directory::Directory,
    error::{Error, Result},
    installation::{Installation, Version, output_text, run},
    process::Process,
    standby::{self, StandbyOptions},
    template,
    wait::until,
};

/// Maximum time for a start, a stop or a promotion, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum time for an orderly stop when a server is dropped. Then it is killed.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// Ports below the range from which Linux chooses ports of clients, so that no client takes the port
/// of a server that is down.
const LOWEST_PORT: u16 = 10_000;
const PORT_ATTEMPTS: usize = 20;

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    version: Version,
    password: Option<String>,
    settings: Vec<String>,
    hba: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Options {
    /// A server that syncs each commit, takes 100 connections, and trusts all local users.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            password: None,
            settings: Vec::new(),
            hba: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Requires this password of the superuser `postgres` on TCP connections, with SCRAM.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a line to `postgresql.conf`. It overrides earlier lines and defaults.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Adds a line to `pg_hba.conf`, before the default lines for TCP connections.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// Sets an environment variable of the server, such as `LD_PRELOAD`.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not sync commits. Faster, for tests that never stop the machine. Killing a server loses
    /// no commit.
    #[must_use]
    pub fn without_fsync(self) -> Self {
        self.setting("fsync = off")
    }

    /// The lines of a new server in `postgresql.conf`.
    fn configuration(&self) -> String {
        let defaults = [
            "max_connections = 100",
            "shared_buffers = 16MB",
            "min_wal_size = 32MB",
            // Instead of replication slots, which keep the log of a standby that is gone.
            "wal_keep_size = 256MB",
            // Below the data directory, so that a killed server leaves no file behind.
            "dynamic_shared_memory_type = mmap",
            "log_line_prefix = '%m [%p] %q%u@%d '",
            "log_timezone = UTC",
            "timezone = UTC",
        ];
        let mut text = String::from("\n");
        for line in defaults.into_iter().chain(self.settings.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn host_rules(&self) -> String {
        let method = if self.password.is_some() { "scram-sha-256" } else { "trust" };
        let mut text = String::from("local all all trust\nlocal replication all trust\n");
        for line in &self.hba {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!("host all all 127.0.0.1/32 {method}\n"));
        text.push_str(&format!("host replication all 127.0.0.1/32 {method}\n"));
        text
    }
}

/// A PostgreSQL server. Dropping the last handle stops it and removes its data.
///
/// The superuser is `postgres`. The server listens on a free port of 127.0.0.1, and on a Unix socket
/// that only its own user and root can reach, and that never requires a password.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

impl Server {
    /// Creates and starts a server, and waits until it accepts connections.
    pub async fn start_new(options: Options) -> Result<Self> {
        blocking(move || Inner::create(options)).await.map(Self::from)
    }

    /// Starts a stopped or killed server with the same data, on the same port.
    pub async fn start(&self) -> Result<()> {
        self.blocking(Inner::start).await
    }

    /// Stops the server after it has cancelled all transactions and synced all data.
    pub async fn stop_fast(&self) -> Result<()> {
        self.blocking(|inner| inner.stop(Signal::SIGINT, TIMEOUT)).await
    }

    /// Stops the server at once. It recovers at the next start.
    pub async fn stop_immediate(&self) -> Result<()> {
        self.blocking(|inner| inner.stop(Signal::SIGQUIT, TIMEOUT)).await
    }

    /// Kills all processes of the server by SIGKILL, and waits until they have ended and the port is
    /// free.
    pub async fn kill(&self) -> Result<()> {
        self.blocking(Inner::kill).await
    }

    /// Stops all processes of the server by SIGSTOP. Its connections stay open.
    pub async fn pause(&self) -> Result<()> {
        self.blocking(|inner| inner.pause().map(drop)).await
    }

    /// Continues all processes of a paused server.
    pub async fn resume(&self) -> Result<()> {
        self.blocking(Inner::resume).await
    }

    /// Runs SQL statements by `psql` in the database `postgres`, each in a transaction of its own.
    /// Returns the rows, with `|` between columns. Fails at the first failed statement.
    pub async fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql).await
    }

    /// Like [`Server::psql`], in another database.
    pub async fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let (database, sql) = (database.to_owned(), sql.to_owned());
        self.blocking(move |inner| inner.psql(&database, &sql)).await
    }

    /// Creates a database.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let name = name.replace('"', "\"\"");
        self.psql(&format!("CREATE DATABASE \"{name}\"")).await.map(drop)
    }

    /// Adds a streaming standby, and waits until it receives all changes.
    pub async fn standby(&self, options: StandbyOptions) -> Result<Self> {
        self.blocking(move |inner| standby::create(inner, options)).await.map(Self::from)
    }

    /// Makes a standby the primary, and waits until it accepts writes.
    pub async fn promote(&self) -> Result<()> {
        self.blocking(standby::promote).await
    }

    /// The URL of a database, with user and password.
    pub fn url(&self, database: &str) -> String {
        let password = self.inner.options.password.as_deref();
        let password = password.map(|text| format!(":{}", percent_encode(text)));
        let (password, database) = (password.unwrap_or_default(), percent_encode(database));
        format!("postgresql://postgres{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// The TCP port on 127.0.0.1. It never changes.
    pub fn port(&self) -> u16 {
        self.inner.port()
    }

    /// The TCP address, for a [`Proxy`](crate::Proxy).
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.inner.directory.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.inner.directory.data()
    }

    /// The id of the server's main process, or `None` if it does not run.
    pub fn pid(&self) -> Option<i32> {
        self.inner.running().map(|process| process.id)
    }

    /// The log of the server since its first start.
    pub fn log(&self) -> String {
        self.inner.log()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || operation(&inner)).await
    }
}

impl From<Inner> for Server {
    fn from(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({}, port {})", self.inner.installation.version, self.port())
    }
}

/// Runs blocking code on a thread for it, so that clients and proxies in the same runtime continue.
async fn blocking<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(operation)
        .await
        .unwrap_or_else(|error| Err(Error::new(format!("operation on a server: {error}"))))
}

/// The blocking operations.
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) installation: Installation,
    pub(crate) directory: Directory,
    /// The setting `cluster_name`, which a standby sends to its primary. Unique in this process.
    pub(crate) name: String,
    port: AtomicU16,
    postmaster: Mutex<Option<Child>>,
}

impl Inner {
    fn create(options: Options) -> Result<Self> {
        let server = Self::new(options)?;
        let data = server.directory.data();
        template::copy(&server.installation, &data)?;
        append(&data.join("postgresql.conf"), &server.options.configuration())?;
        let rules = data.join("pg_hba.conf");
        fs::write(&rules, server.options.host_rules())
            .map_err(|error| Error::io("write", &rules, &error))?;
        server.start_on_free_port()?;
        if let Some(password) = &server.options.password {
            let password = password.replace('\'', "''");
            server.psql_as_superuser(&format!("ALTER ROLE postgres PASSWORD '{password}'"))?;
        }
        Ok(server)
    }

    /// A server without data.
    pub(crate) fn new(options: Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let installation = Installation::find(options.version)?;
        Ok(Self {
            directory: Directory::create(installation.user)?,
            options,
            installation,
            name: format!("server_{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            port: AtomicU16::new(0),
            postmaster: Mutex::new(None),
        })
    }

    /// Starts the server for the first time.
    pub(crate) fn start_on_free_port(&self) -> Result<()> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.port.store(free_port()?, Ordering::Relaxed);
            match self.start() {
                // Another process has taken the port.
                Err(_) if attempts < PORT_ATTEMPTS && self.log().contains("could not bind") => {
                    let log = self.directory.log();
                    fs::write(&log, "").map_err(|error| Error::io("write", &log, &error))?;
                }
                result => return result,
            }
        }
    }

    fn start(&self) -> Result<()> {
        if let Some(process) = self.running() {
            return Err(Error::new(format!("the server already runs as process {}", process.id)));
        }
        let log = self.directory.log();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| Error::io("open", &log, &error))?;
        let errors = log.try_clone().map_err(|error| self.error(&error.to_string()))?;
        let socket_dir = self.directory.path();
        let mut command = self.installation.command("postgres", socket_dir);
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command.arg("-D").arg(self.directory.data());
        // Not in the configuration file, which a standby copies.
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port()),
            format!("unix_socket_directories={}", socket_dir.display()),
            format!("cluster_name={}", self.name),
        ] {
            command.args(["-c", &setting]);
        }
        let child = command
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in a terminal signals the group of the tests. The watchdog ends the server.
            .process_group(0)
            .spawn()
            .map_err(|error| self.error(&format!("cannot start postgres: {error}")))?;
        let id = child.id();
        *self.postmaster() = Some(child);
        until("the server accepts connections", TIMEOUT, || {
            if self.running().is_none() {
                return Err(Error::new("the server has ended at its start"));
            }
            Ok(self.accepts_connections(id).then_some(()))
        })
        .map_err(|error| self.error(&error.to_string()))
    }

    /// Reads the server's status file, as `pg_ctl start` does. Unlike attempts to connect, this leaves
    /// no lines in the log.
    fn accepts_connections(&self, id: u32) -> bool {
        let status = self.postmaster_file();
        let mut lines = status.lines().map(str::trim);
        lines.next() == Some(id.to_string().as_str()) && lines.nth(6) == Some("ready")
    }

    fn stop(&self, signal: Signal, limit: Duration) -> Result<()> {
        self.resume()?;
        let Some(process) = self.running() else { return Ok(()) };
        process.signal(signal)?;
        until("the server stops", limit, || Ok(self.running().is_none().then_some(())))
            .map_err(|error| self.error(&error.to_string()))
    }

    fn kill(&self) -> Result<()> {
        // A stopped process starts no other.
        let processes = self.pause()?;
        for process in &processes {
            process.signal(Signal::SIGKILL)?;
        }
        until("the killed processes end", TIMEOUT, || {
            let ended = self.running().is_none() && !processes.iter().any(Process::is_running);
            Ok((ended && is_free(self.port())).then_some(()))
        })
    }

    /// Stops all processes and returns them, the main process first.
    fn pause(&self) -> Result<Vec<Process>> {
        let Some(postmaster) = self.running() else { return Ok(Vec::new()) };
        postmaster.signal(Signal::SIGSTOP)?;
        until("the server pauses", TIMEOUT, || Ok(postmaster.is_stopped().then_some(())))?;
        let mut processes = vec![postmaster];
        processes.extend(Process::children_of(postmaster.id));
        for process in &processes {
            process.signal(Signal::SIGSTOP)?;
        }
        until("the server's children pause", TIMEOUT, || {
            Ok(processes.iter().all(Process::is_stopped).then_some(()))
        })?;
        Ok(processes)
    }

    fn resume(&self) -> Result<()> {
        let Some(postmaster) = self.running() else { return Ok(()) };
        for process in Process::children_of(postmaster.id) {
            process.signal(Signal::SIGCONT)?;
        }
        postmaster.signal(Signal::SIGCONT)
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.installation.psql()?;
        if let Some(password) = &self.options.password {
            command.env("PGPASSWORD", password);
        }
        run_psql(command.args(["-h", "127.0.0.1"]), self.port(), database, sql)
    }

    /// Like [`Inner::psql`], over the Unix socket.
    pub(crate) fn psql_as_superuser(&self, sql: &str) -> Result<String> {
        let mut command = self.installation.psql()?;
        run_psql(command.arg("-h").arg(self.directory.path()), self.port(), "postgres", sql)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.options.password.as_deref()
    }

    /// Waits until a query of the superuser returns a value.
    pub(crate) fn wait_for_value(&self, what: &str, sql: &str, value: &str) -> Result<()> {
        let mut last = String::new();
        until(what, TIMEOUT, || {
            last = self.psql_as_superuser(sql)?.trim().to_owned();
            Ok((last == value).then_some(()))
        })
        .map_err(|error| self.error(&format!("{error} (last value: {last:?})")))
    }

    /// An error with the log of the server.
    pub(crate) fn error(&self, text: &str) -> Error {
        Error::new(format!("{text}\nThe server's log:\n{}", self.log()))
    }

    fn log(&self) -> String {
        fs::read(self.directory.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn postmaster_file(&self) -> String {
        fs::read_to_string(self.directory.data().join("postmaster.pid")).unwrap_or_default()
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the main process if it runs.
    fn running(&self) -> Option<Process> {
        let mut postmaster = self.postmaster();
        let child = postmaster.as_mut()?;
        if let Ok(None) = child.try_wait() {
            return Process::with_id(i32::try_from(child.id()).ok()?);
        }
        *postmaster = None;
        None
    }

    /// Removes the shared memory that a killed server has left behind.
    fn remove_shared_memory(&self) {
        let status = self.postmaster_file();
        if let Some(id) = status.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = run(Command::new("ipcrm").args(["-m", id]));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.stop(Signal::SIGQUIT, DROP_TIMEOUT).is_err() {
            let _ = self.kill();
        }
        self.remove_shared_memory();
    }
}

fn run_psql(command: &mut Command, port: u16, database: &str, sql: &str) -> Result<String> {
    let failed = |error: std::io::Error| Error::new(format!("cannot run psql: {error}"));
    command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &port.to_string()]);
    command.args(["-d", database, "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let input = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            // After an error, psql does not read the rest.
            input.map(|mut input| input.write_all(sql.as_bytes()))
        });
        child.wait_with_output()
    });
    output_text(command, output.map_err(failed)?)
        .map_err(|error| Error::new(format!("{error}SQL: {sql}")))
}

fn free_port() -> Result<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(32_768);
    for _ in 0..1_000 {
        let port = fastrand::u16(LOWEST_PORT..end.max(LOWEST_PORT + 1_000));
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(Error::new("found no free port of 127.0.0.1"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Appends text to a file of the server, without a change of its owner.
pub(crate) fn append(path: &Path, text: &str) -> Result<()> {
    let append = || File::options().append(true).open(path)?.write_all(text.as_bytes());
    append().map_err(|error| Error::io("write", path, &error))
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
