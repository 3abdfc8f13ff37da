//! Errors of servers and proxies.

use std::{fmt, io, path::Path};

/// The result of an operation on a server or a proxy.
pub type Result<T> = std::result::Result<T, Error>;

/// A text that names the failed operation, its cause and, where known, the remedy.
///
/// `Debug` prints the same text, so that the line breaks of a server's log stay readable in the
/// message of a failed `expect`.
#[derive(Clone)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self(format!("cannot {operation} {}: {error}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
