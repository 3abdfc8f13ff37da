//! The callbacks of a change: their bodies and their delivery.

pub(crate) mod body;
pub(crate) mod delivery;
