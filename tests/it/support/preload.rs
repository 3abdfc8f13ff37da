//! Compiles the C libraries that are preloaded into the gateway.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles `tests/tools/<name>.c` into a library for `LD_PRELOAD`. Needs only a C compiler.
pub fn compile_preload(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/tools/{name}.c"));
    let library = format!("{name}-{}.so", std::process::id());
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(library);
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
    let compiled = compiler.args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("cc runs").success(), "cc fails for {name}.c");
    library
}
