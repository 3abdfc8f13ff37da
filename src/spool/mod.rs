//! The spool: keeps callbacks on the local disk while the journal cannot store them.
//!
//! A callback that is appended to the spool is synced and answered 200. The mover stores spooled callbacks in
//! the journal once it answers again, and then deletes them from the spool. A crash between both steps stores
//! a callback twice, and the journal recognizes the duplicate. The spool knows the traits of the journal, not
//! its engine.
//!
//! # When a callback is spooled
//!
//! * The journal reports that it cannot write or that its queue is full.
//! * The journal does not answer in time. The append that was given up may still succeed: then the spooled copy
//!   is the duplicate.
//! * Any callback is in the spool, or on its way there, and not in the journal yet.
//!
//! # Order
//!
//! If a callback was answered before another one of the same request arrived, it gets the lower position in
//! the journal. `Order` makes sure of it under one lock:
//!
//! 1. *Into the spool.* While a callback is pending, that is in the spool or queued for it, all callbacks go to
//!    the spool. Each gets an id in the order of arrival.
//! 2. *Out of the spool.* The mover waits until no direct append is in progress. From then on none begins,
//!    because of rule 1. A direct append that fails keeps the id of its arrival, so the spool is complete and in
//!    the order of arrival when the mover reads it.
//! 3. *Within the mover.* It stores the callbacks of one request in order
//!    ([`CallbackStore::store_callbacks`](crate::journal::CallbackStore::store_callbacks)), and stops at an error. A
//!    callback that failed, or was stored without an answer, is sent again before the ones after it. Different
//!    requests are stored concurrently.
//! 4. *Back to the journal.* A callback ceases to be pending when the journal has acknowledged it. A direct
//!    append therefore begins only after the journal has all spooled callbacks, and gets a higher position
//!    ([`CallbackStore::store_callback`](crate::journal::CallbackStore::store_callback)).
//!
//! Callbacks of one request that are appended to the journal at the same moment have no order: if the journal
//! stores the later one and fails for the earlier one, the earlier one follows from the spool. Each replica has
//! a spool of its own, so the order holds among the callbacks that one replica received.
//!
//! # Content
//!
//! A record has no credentials. The text of a body that reaches
//! [`store_callback`](crate::journal::CallbackStore::store_callback) has none
//! ([`payload::parse`](crate::callbacks::payload::parse) cuts them out), and the two that the parser returns
//! beside it, for authentication, are not part of the record. Otherwise, the record has what the journal
//! stores: identifiers of devices. So only the owner may read the files.

mod database;
mod error;
mod mover;
mod order;
mod record;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod spool;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{SpoolOpenError, SpoolOpenFailure};
pub use spool::{Appended, Spool, SpoolOptions, SpoolStats};
