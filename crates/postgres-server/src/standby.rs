//! Streaming standbys.

use std::{fs, net::SocketAddr};

use crate::{
    error::{Error, Result},
    installation::run,
    server::{Inner, append},
};

/// Options of a standby.
#[derive(Clone, Debug, Default)]
pub struct StandbyOptions {
    synchronous: bool,
    via: Option<SocketAddr>,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
}

impl StandbyOptions {
    /// The primary confirms a commit without waiting for the standby.
    pub fn asynchronous() -> Self {
        Self::default()
    }

    /// The primary confirms a commit only after the standby has synced it. Replaces earlier
    /// synchronous standbys of the primary.
    pub fn synchronous() -> Self {
        Self { synchronous: true, ..Self::default() }
    }

    /// Receives changes through this address, such as that of a proxy in front of the primary.
    #[must_use]
    pub fn via(mut self, address: SocketAddr) -> Self {
        self.via = Some(address);
        self
    }

    /// Adds a line to `postgresql.conf` of the standby.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Sets an environment variable of the standby. It has none of those of the primary.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub(crate) fn create(primary: &Inner, options: StandbyOptions) -> Result<Inner> {
    let mut of_standby = primary.options.clone();
    of_standby.environment = options.environment;
    let standby = Inner::new(of_standby)?;
    let data = standby.directory.data();
    let mut backup = standby.installation.command("pg_basebackup", standby.directory.path());
    if let Some(password) = primary.password() {
        backup.env("PGPASSWORD", password);
    }
    let address = options.via.unwrap_or(SocketAddr::from(([127, 0, 0, 1], primary.port())));
    run(backup
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--username=postgres", "--no-password", "--checkpoint=fast", "--no-sync"])
        .args(["--wal-method=stream", "--write-recovery-conf", "--pgdata"])
        .arg(&data))?;
    forget_standbys(&standby)?;
    let mut settings = String::from("\n");
    for line in &options.settings {
        settings.push_str(line);
        settings.push('\n');
    }
    append(&data.join("postgresql.conf"), &settings)?;
    standby.start_on_free_port()?;

    let name = &standby.name;
    let state = format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
    primary.wait_for_value("the standby receives changes", &state, "streaming")?;
    if options.synchronous {
        primary.psql_as_superuser(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({name})';
             SELECT pg_reload_conf();"
        ))?;
        let state = state.replace("SELECT state", "SELECT sync_state");
        primary.wait_for_value("the standby is synchronous", &state, "sync")?;
    }
    Ok(standby)
}

pub(crate) fn promote(standby: &Inner) -> Result<()> {
    standby.psql_as_superuser("SELECT pg_promote(true, 120)")?;
    standby.wait_for_value("the standby is promoted", "SELECT pg_is_in_recovery()", "f")
}

/// Removes the names of the primary's synchronous standbys from the copied configuration. The
/// promoted server would wait for them at each commit.
fn forget_standbys(standby: &Inner) -> Result<()> {
    let path = standby.directory.data().join("postgresql.auto.conf");
    let text = fs::read_to_string(&path).map_err(|error| Error::io("read", &path, &error))?;
    let kept: Vec<_> = text
        .split_inclusive('\n')
        .filter(|l| !l.starts_with("synchronous_standby_names"))
        .collect();
    fs::write(&path, kept.concat()).map_err(|error| Error::io("write", &path, &error))
}
