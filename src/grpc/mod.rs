//! The gRPC server.
//!
//! `server` accepts connections. Each call passes `middleware`, `access` and `admission`, and ends in a handler of
//! `service` or `operator`, which parses its `message`. `watch_body` sends the messages of a watch. `convert` maps between the protos and the domain.
//! `error` maps every error to a gRPC status.

mod access;
mod admission;
mod call_audit;
mod convert;
mod error;
mod generated;
mod health;
mod json;
mod list;
mod message;
mod middleware;
mod operator;
mod pagination;
mod request_filter;
mod selector;
mod server;
mod service;
mod unavailable;
mod visibility;
mod watch_body;
mod web;

pub use admission::{caller_usage::CallerUsages, concurrency::AdmissionControl};
pub use convert::ProtoEncoder;
pub use generated::health_v1;
pub use health::HealthService;
pub use json::decode_json_request;
pub use message::validate_message;
pub use operator::Operator;
pub use request_filter::RequestFilter;
pub use server::{Server, ServerError};
pub use service::{Gateway, LISTS_OF_CALLER};
pub use unavailable::unavailable_server;
