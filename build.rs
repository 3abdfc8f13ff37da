//! Compiles the protos with protox, a pure-Rust protobuf compiler, so that
//! building the gateway needs no protoc. Nothing generated is committed.

use std::{env, error::Error, fs, path::PathBuf};

/// Our protos and third-party protos.
const INCLUDES: [&str; 2] = ["proto", "third_party/proto"];

const GATEWAY_FILES: [&str; 6] = [
    "thingspace/gateway/v1/gateway_service.proto",
    "thingspace/gateway/v1/change.proto",
    "thingspace/gateway/v1/device.proto",
    "thingspace/gateway/v1/error.proto",
    "thingspace/gateway/v1/operator_service.proto",
    "thingspace/gateway/v1/watch.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for dir in INCLUDES {
        println!("cargo:rerun-if-changed={dir}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(INCLUDES)?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(GATEWAY_FILES)?;
    let gateway = compiler.file_descriptor_set();
    // Served by reflection. Our protos do not import error_details.proto, but
    // grpcurl needs it to print the details of an error.
    compiler.open_files(["google/rpc/error_details.proto", "grpc/health/v1/health.proto"])?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let messages = out.join("messages");
    let server = out.join("server");
    let health = out.join("health");
    for dir in [&messages, &server, &health] {
        fs::create_dir_all(dir)?;
    }

    // Messages and client stubs.
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .out_dir(&messages)
        .compile_fds(gateway.clone())?;
    // The server's trait uses the same messages.
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .extern_path(".thingspace.gateway.v1", "crate::proto")
        .out_dir(&server)
        .compile_fds(gateway)?;

    let mut compiler = protox::Compiler::new(INCLUDES)?;
    compiler.include_source_info(true);
    compiler.open_files(["grpc/health/v1/health.proto"])?;
    tonic_prost_build::configure().out_dir(&health).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
