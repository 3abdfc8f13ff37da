//! The callback listener: receives ThingSpace's callbacks over HTTP/1.1.
//!
//! A callback that was answered with 200 is on disk. Any other response means that it was stored
//! completely or not at all. `docs/callbacks.md` lists all responses.
//!
//! The path secret, the credentials in the body and the client address decide which callbacks are
//! accepted.

mod append;
mod auth;
mod body;
mod callback_log;
mod client_ip;
pub mod payload;
mod quarantine;
mod receive;
mod recent;
mod response;
mod routes;
mod server;
mod state;
mod telemetry;
#[cfg(test)]
mod tests;

pub use quarantine::{Quarantine, ReplayCounts, ReplayOutcome, credential_mac};
pub use recent::{RecentCallback, RecentCallbacks};
pub use server::CallbackListener;
