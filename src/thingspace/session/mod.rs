//! The token and the session in use, and their renewal.

mod auth_headers;
mod manager;
mod retry;
mod state;
#[cfg(test)]
mod tests;

pub(super) use auth_headers::AuthHeaders;
pub(super) use manager::SessionManager;
