//! The HTTP interface of the sandbox.

pub(crate) mod change_response;
pub(crate) mod connections;
pub(crate) mod device_list;
pub(crate) mod lookups;
pub(crate) mod routes;
