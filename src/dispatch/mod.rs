//! Dispatch: sends a change to ThingSpace and records the response.
//!
//! The order of the steps is what prevents a second execution:
//!
//! 1. QUEUED is durable before anything else happens.
//! 2. DISPATCHED is durable before the first byte of the POST leaves.
//! 3. The response is durable before the caller gets it.
//!
//! A change that is DISPATCHED and has no response is never sent again, neither after a crash nor by a call
//! with the same key. The POST runs on a task of its own: a caller that disconnects does not stop it.

mod dispatcher;
mod error;
mod in_flight;
mod pauses;
mod sender;
#[cfg(test)]
mod tests;

pub use dispatcher::{CallContext, Dispatcher};
pub use error::{DispatchError, ExistingChange};
pub use in_flight::InFlight;
pub(crate) use pauses::KV_KEY as PAUSES;
pub use pauses::{Pause, PauseError, Pauses, pause_after_loss, pause_restored};
