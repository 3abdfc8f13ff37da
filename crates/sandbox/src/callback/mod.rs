//! Callbacks: their bodies and their delivery.

mod body;
pub(crate) mod delivery;
