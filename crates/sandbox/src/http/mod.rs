//! The HTTP interface.

mod auth;
mod callbacks;
mod change;
mod device_list;
mod extract;
mod lookups;
pub(crate) mod routes;
