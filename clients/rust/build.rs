//! Compiles the protos with protox, a protobuf compiler in Rust, so that building
//! the crate needs no protoc.

use std::error::Error;

const FILES: [&str; 6] = [
    "thingspace/gateway/v1/gateway_service.proto",
    "thingspace/gateway/v1/change.proto",
    "thingspace/gateway/v1/device.proto",
    "thingspace/gateway/v1/error.proto",
    "thingspace/gateway/v1/operator_service.proto",
    "thingspace/gateway/v1/watch.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
