//! What must hold of any bytes at all. The fuzz targets call it, and so does tests/it/corpus.rs.

pub mod callback;
pub mod error_body;
pub mod settings;
pub mod token;

/// What nobody may see. No other text has it in it.
pub const SECRET: &str = "hush7f3a9c";

/// Whether a text has the secret in it, in any case.
pub fn contains_secret(text: &str) -> bool {
    text.to_lowercase().contains(SECRET)
}
