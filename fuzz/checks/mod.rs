//! Checks that must hold for any input. The fuzz targets and tests/it/corpus.rs call them.

pub mod callback;
mod change_request;
pub mod error_body;
pub mod forwarded_client_cert;
pub mod grpc_request;
pub mod json_request;
pub mod jwt;
pub mod policy;
pub mod settings;
pub mod token;

/// A secret that occurs in no other text.
pub const SECRET: &str = "hush7f3a9c";

/// True if a text contains the secret in upper or lower case.
pub fn contains_secret(text: &str) -> bool {
    text.to_lowercase().contains(SECRET)
}
