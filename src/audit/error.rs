//! Errors of the audit log.

use std::{io, path::PathBuf};

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditOpenError {
    /// The file cannot be used.
    #[error("audit.file {path}: {source}", path = .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The process has no standard output.
    #[error("audit.output = stdout: {0}")]
    StandardOutput(io::Error),
    /// The thread of the writer cannot be started.
    #[error("cannot start the writer of the audit log: {0}")]
    Thread(io::Error),
}

/// The log cannot be written. A change or a command of an operator must not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct AuditUnavailable;

/// A record that is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record is queued. It is written when the log can be written again.
    #[error("the record waits for the audit log")]
    Delayed,
    /// The record is lost. The log reports the number of lost records once it can be written again.
    #[error("the record of the audit log is lost")]
    Lost,
}
