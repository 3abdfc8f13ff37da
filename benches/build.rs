//! Compiles the gateway's protos.

use std::{env, error::Error, fs, path::PathBuf};

const INCLUDES: [&str; 2] = ["../proto", "../third_party/proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for dir in INCLUDES {
        println!("cargo:rerun-if-changed={dir}");
    }
    let mut compiler = protox::Compiler::new(INCLUDES)?;
    compiler.include_imports(true);
    compiler.open_file("thingspace/gateway/v1/gateway_service.proto")?;
    let files = compiler.file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .generate_default_stubs(true)
        .compile_fds(files.clone())?;
    // The same service, whose watch messages stay encoded.
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .extern_path(".thingspace.gateway.v1", "crate::proto")
        .extern_path(".thingspace.gateway.v1.WatchRequestResponse", "crate::encoded::Encoded")
        .generate_default_stubs(true)
        .out_dir(&encoded)
        .compile_fds(files)?;
    Ok(())
}
