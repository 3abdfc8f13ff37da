//! A full or slow disk and a wrong system clock: `tests/tools/disk.c`, preloaded into a gateway or a server of
//! PostgreSQL.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use tempfile::TempDir;

use super::{gateway::Setup, preload::compile_preload};

/// The disk of one directory, and the system clock of the processes that use it.
pub struct FaultyDisk {
    control: File,
    environment: [(&'static str, String); 3],
    _control: TempDir,
}

/// A fault that happens at a call that changes or syncs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The process is killed before the call.
    Kill,
    /// No file can grow from the call on.
    Fill,
}

/// Compiled once for all tests.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| compile_preload("disk"));

/// A setup with a system clock that is ahead by `seconds`.
pub fn with_clock_offset(setup: Setup, seconds: i64) -> Setup {
    setup
        .env("LD_PRELOAD", &LIBRARY.to_string_lossy())
        .env("TEST_CLOCK_OFFSET", &seconds.to_string())
}

// === impl FaultyDisk ===

impl FaultyDisk {
    /// Returns a disk without a fault.
    pub fn new(directory: &Path) -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        // Other users can read the files, because PostgreSQL does not run as root.
        fs::set_permissions(own.path(), Permissions::from_mode(0o755)).expect("the own directory");
        let path = own.path().join("control");
        fs::write(&path, [0; 16]).expect("a control file");
        let library = own.path().join("disk.so");
        fs::copy(&*LIBRARY, &library).expect("a copy");
        let control = File::options().write(true).open(&path);
        Self {
            control: control.expect("a control file"),
            environment: [
                ("LD_PRELOAD", library.to_string_lossy().into_owned()),
                ("TEST_DISK_CONTROL", path.to_string_lossy().into_owned()),
                ("TEST_DISK_DIRECTORY", directory.to_string_lossy().into_owned()),
            ],
            _control: own,
        }
    }

    /// A setup of a gateway that uses this disk.
    pub fn attach(&self, setup: Setup) -> Setup {
        self.environment().fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    /// The environment of a process that uses this disk.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The environment of a process in which a fault happens at the call of this number on a file of the directory.
    pub fn environment_with(&self, fault: DiskFault, call: usize) -> Vec<(String, String)> {
        let name = match fault {
            DiskFault::Kill => "TEST_DISK_KILL_AT",
            DiskFault::Fill => "TEST_DISK_FULL_AT",
        };
        let own = self.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
        own.chain([(name.to_owned(), call.to_string())]).collect()
    }

    /// Lets no file grow.
    pub fn fill(&self) {
        self.write_control(0, 1);
    }

    /// Lets no write succeed, not even one that overwrites, as on a copy-on-write file system.
    pub fn fill_entirely(&self) {
        self.write_control(0, 2);
    }

    /// Lets no write of the marker succeed.
    pub fn fail_marker(&self) {
        self.write_control(0, 3);
    }

    /// Lets no write end, as on a network file system whose server does not respond.
    pub fn block_writes(&self) {
        self.write_control(0, 4);
    }

    /// Frees the disk.
    pub fn empty(&self) {
        self.write_control(0, 0);
    }

    /// Delays each sync.
    pub fn slow_down(&self, sync: Duration) {
        let milliseconds = u32::try_from(sync.as_millis()).expect("a short time");
        self.write_control(4, milliseconds);
    }

    /// Sets the gateway's system clock ahead, or back if `days` is negative.
    pub fn set_clock_ahead(&self, days: i64) {
        let seconds = (days * 86_400).to_ne_bytes();
        let written = self.control.write_all_at(&seconds, 8);
        written.expect("the control file can be written");
    }

    fn write_control(&self, at: u64, value: u32) {
        let written = self.control.write_all_at(&value.to_ne_bytes(), at);
        written.expect("the control file can be written");
    }
}
