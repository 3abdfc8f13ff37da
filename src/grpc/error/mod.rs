//! The only place that turns errors into gRPC statuses.
//!
//! Every status carries one `google.rpc.ErrorInfo` (AIP-193) with advice for the caller. All trailers of a
//! status stay below 8,000 bytes as encoded, which every client accepts.

mod api_error;
mod from;
pub(super) mod reason;

pub(super) use api_error::{ApiError, Executed};
pub(super) use from::refusal_error;

#[cfg(test)]
mod tests;
