//! Checks of combinations of settings.

mod credentials;
mod exposure;
mod forward;
mod limits;
mod registration;
mod rules;

pub(super) use rules::RULES;
