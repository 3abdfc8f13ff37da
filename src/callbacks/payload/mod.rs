//! The body of a callback.

mod parse;
mod redact;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use redact::{RedactedBody, redact};
