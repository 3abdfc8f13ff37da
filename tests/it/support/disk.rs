//! A disk that is full, or slow, and a wrong system clock, whenever a test says so:
//! `tests/tools/disk.c`, preloaded into the gateway. It needs no rights, only a C compiler.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use tempfile::TempDir;

use super::gateway::{Setup, TestDir};

/// The disk below one directory.
pub struct FaultyDisk {
    control: File,
    environment: [(&'static str, PathBuf); 3],
    _control: TempDir,
}

/// Compiled once for all tests.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/disk.c");
    let name = format!("disk-{}.so", std::process::id());
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]);
    let compiled = compiler.args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("cc runs").success(), "cc fails");
    library
});

// === impl Disk ===

impl FaultyDisk {
    /// The disk below a directory, with room and at its own speed.
    pub fn new(directory: &TestDir) -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        let path = own.path().join("control");
        std::fs::write(&path, [0; 16]).expect("a control file");
        let control = File::options().write(true).open(&path);
        Self {
            control: control.expect("a control file"),
            environment: [
                ("LD_PRELOAD", LIBRARY.clone()),
                ("TSGW_DISK_CONTROL", path),
                ("TSGW_DISK_DIRECTORY", directory.path().to_owned()),
            ],
            _control: own,
        }
    }

    /// A gateway that is on it.
    pub fn attach(&self, setup: Setup) -> Setup {
        let each = self.environment.iter();
        each.fold(setup, |setup, (name, value)| {
            setup.env(name, &value.to_string_lossy())
        })
    }

    /// From now on no file grows.
    pub fn fill(&self) {
        self.write_control(0, 1);
    }

    /// From now on no write finds room, nor one over what is there: as where writing is copying.
    pub fn fill_entirely(&self) {
        self.write_control(0, 2);
    }

    /// There is room again.
    pub fn empty(&self) {
        self.write_control(0, 0);
    }

    /// From now on each sync takes so much longer.
    pub fn slow_down(&self, sync: Duration) {
        let milliseconds = u32::try_from(sync.as_millis()).expect("a short time");
        self.write_control(4, milliseconds);
    }

    /// From now on the gateway's system clock is ahead by so many days, or behind.
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
