//! The callbacks of a change.

pub(crate) mod barrier;
mod body;
pub(crate) mod client;
pub(crate) mod delivery;
