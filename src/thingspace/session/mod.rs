//! The token and the session in use, and their renewal.

mod manager;
mod state;
#[cfg(test)]
mod tests;

pub(super) use manager::SessionManager;
pub(super) use state::AuthHeaders;
