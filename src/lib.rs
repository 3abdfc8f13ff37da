//! A gRPC gateway to Verizon's ThingSpace Connectivity Management API.
//!
//! The rooms, each importing only from those listed after it:
//!
//! - [`cli`]: the command line, one short file per subcommand;
//! - [`app`]: the wiring, from settings to a running gateway and its end;
//! - [`api`]: the gRPC face;
//! - [`listener`]: the HTTP face for ThingSpace's callbacks;
//! - [`submit`]: a change from the intent to ThingSpace's answer;
//! - [`upkeep`]: what runs by itself: deadlines, retention;
//! - [`watch`]: replay and live tail, one stream of events; resume tokens;
//! - [`thingspace`]: the REST client: tokens, calls, the answer table;
//! - [`journal`]: what was asked, answered and received, on disk;
//! - [`domain`]: identifiers, changes and their validation, device results,
//!   device matching, states. Pure: no I/O, no async, no clock of its own.
//!
//! Beside them, importing nothing: [`config`] and [`telemetry`]; and the
//! [`sandbox`], a ThingSpace that runs anywhere. And [`broken`]: what the fault suite may break on
//! purpose, in builds that are made for it; [`loopback`]: one rule for what is on this machine.

pub mod api;
pub mod app;
pub mod broken;
pub mod cli;
pub mod config;
pub mod domain;
pub mod journal;
pub mod listener;
pub mod loopback;
pub mod sandbox;
pub mod submit;
pub mod telemetry;
pub mod thingspace;
pub mod upkeep;
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
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
