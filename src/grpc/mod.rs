//! The gRPC face.
//!
//! Handlers read top-down in `service`; `convert` is between the protos and
//! the domain; `status` is the one place where an error becomes a gRPC
//! status, and `layers` the one that lists what a call passes through.

mod admission;
mod convert;
mod error;
mod health;
mod list;
mod middleware;
mod selector;
mod server;
mod service;
mod watch_encoder;

pub use admission::concurrency::ConcurrencyLimits;
pub use error::reason::ErrorReason;
pub use health::HealthService;
pub use server::{GrpcSettings, Server, ServerBuildError};
pub use service::{Gateway, ServerInfo};
pub use watch_encoder::ProtoEncoder;

/// The server's trait of `GatewayService`, over the messages of
/// [`crate::proto`].
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
mod stub {
    include!(concat!(env!("OUT_DIR"), "/server/thingspace.gateway.v1.rs"));
}

/// The gRPC health checking protocol.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated; its documentation is the comments of the proto file"
)]
pub mod health_v1 {
    include!(concat!(env!("OUT_DIR"), "/health/grpc.health.v1.rs"));
}
