#![doc = include_str!("../README.md")]

mod client;
mod connect;
mod error;
mod list;
mod retry;
mod watch;

pub use client::{CallOptions, Client, GatewayStub, OperatorStub};
pub use connect::{AddToken, ClientBuilder, Token, Transport};
pub use error::{FieldViolation, GatewayError};
pub use list::List;
pub use retry::{Backoff, FailedAttempt, must_repeat_change, must_repeat_read};
pub use watch::{Watch, WatchEvent};

// Types of these crates are part of the API.
pub use prost_types;
pub use tonic;

/// Messages, enums and stubs of the package `thingspace.gateway.v1`.
///
/// Fields of enum types are numbers. A message has a method for each of them: `change.state()` is a
/// [`ChangeState`](v1::ChangeState). All enums are open sets, and the method returns `Unspecified` for a
/// number that this version does not know.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        unreachable_pub,
        reason = "generated; its documentation is the comments of the proto files"
    )]
    tonic::include_proto!("thingspace.gateway.v1");
}

/// A future of a call that is under way.
type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;
