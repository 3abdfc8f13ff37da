//! The HTTP interface.

mod callbacks;
mod change;
pub(crate) mod connections;
mod device_list;
mod extract;
mod lookups;
mod oauth;
pub(crate) mod routes;
mod session;
