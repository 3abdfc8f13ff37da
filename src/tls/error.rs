//! The error of unusable files.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

/// A certificate, a private key or a CA bundle that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the {content} in {}: {cause}", .path.display())]
pub struct TlsError {
    /// Content of the file, such as `certificate`.
    content: &'static str,
    path: PathBuf,
    cause: String,
}

impl TlsError {
    pub(super) fn new(content: &'static str, path: &Path, cause: impl Display) -> Self {
        Self { content, path: path.to_owned(), cause: cause.to_string() }
    }
}
