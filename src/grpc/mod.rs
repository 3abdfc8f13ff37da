//! The gRPC server.
//!
//! `server` accepts connections. Each call passes `middleware` and `admission`, and ends in a handler of
//! `service`. `convert` maps between the protos and the domain. `error` maps every error to a gRPC status.

mod admission;
mod convert;
mod error;
mod health;
mod list;
mod middleware;
mod pagination;
mod selector;
mod server;
mod service;
mod watch_encoder;

#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
pub mod health_v1;
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
mod stub;

pub use admission::concurrency::ConcurrencyLimits;
pub use health::HealthService;
pub use server::{GrpcSettings, Server, ServerBuildError};
pub use service::Gateway;
pub use watch_encoder::ProtoEncoder;
