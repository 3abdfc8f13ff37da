//! The ledger of executed changes. It contains no names, addresses or credentials.

pub(crate) mod entries;
pub(crate) mod report;
pub(crate) mod store;
