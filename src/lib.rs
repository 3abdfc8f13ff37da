//! A gRPC gateway to Verizon's ThingSpace Connectivity Management API.
//!
//! Each module depends only on modules that stand below it in this list:
//!
//! - [`cli`]: the command line, one file per subcommand;
//! - [`app`]: wiring and lifecycle, from settings to a running gateway and its shutdown;
//! - [`grpc`]: the gRPC server;
//! - [`callbacks`]: the HTTP listener for ThingSpace's callbacks;
//! - [`background`]: deadlines, lookups of missing results, attribution, registration of the listener,
//!   forwarding, retention;
//! - [`dispatch`]: sends a change to ThingSpace and records the answer;
//! - [`watch`]: streams of stored and new events; resume tokens;
//! - [`thingspace`]: the REST client;
//! - [`journal`]: the durable store of changes, answers and callbacks;
//! - [`domain`]: changes and their states, identifiers, validation, device results and how they match
//!   devices. Pure: no I/O, no async, no clock of its own;
//! - [`config`], [`telemetry`], [`broken`] (rules that test builds can leave out).
//!
//! The crate `thingspace-sandbox` simulates ThingSpace; `thingspace-loopback` decides what is on the
//! loopback interface.

pub mod app;
pub mod background;
pub mod callbacks;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod grpc;
pub mod invariants;
pub mod journal;
pub mod operations;
pub mod telemetry;
pub mod thingspace;
pub mod watch;

/// The messages and client stubs of `proto/thingspace/gateway/v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated; its documentation is the comments of the proto files"
)]
pub mod proto {
    include!(concat!(
        env!("OUT_DIR"),
        "/messages/thingspace.gateway.v1.rs"
    ));

    /// Descriptors of all served protos and of google/rpc/error_details.proto.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
