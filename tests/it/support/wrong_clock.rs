//! A gateway whose wall clock is wrong: `tests/tools/offset_clock.c`, preloaded.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use super::gateway::Setup;

/// Compiled once for all tests.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/offset_clock.c");
    let name = format!("offset-clock-{}.so", std::process::id());
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]);
    let compiled = compiler.args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("cc runs").success(), "cc fails");
    library
});

/// Starts gateways with a clock that is so many seconds ahead, or behind.
pub fn with_clock_offset(setup: Setup, seconds: i64) -> Setup {
    setup
        .env("LD_PRELOAD", &LIBRARY.to_string_lossy())
        .env("TSGW_CLOCK_OFFSET", &seconds.to_string())
}
