//! The journal of many replicas: a PostgreSQL database.
//!
//! Each replica has one connection that writes, a pool of connections that read, and one that listens for commits of
//! the other replicas. A commit locks the head row first, so commits of all replicas have one order, which is that of
//! their positions. A replica holds a lease on the clock of the database while it works.

mod accept_loss;
mod connection;
mod continuity;
mod coordination;
mod database;
mod dialect;
mod driver;
mod durability;
mod error;
mod follower;
mod journal;
mod notifications;
mod readers;
mod replica;
mod schema;
#[cfg(test)]
mod tests;
pub mod transfer;
mod url;
mod value;
mod writer;

pub use accept_loss::{AcceptedLoss, accept_loss};
pub use error::{JournalOpenError, OpenFailure};
pub use journal::{PostgresOptions, open};
pub use url::UrlError;
