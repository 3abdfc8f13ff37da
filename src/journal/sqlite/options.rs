//! Options for opening a journal.

use std::path::PathBuf;

use crate::{journal::Origin, telemetry::Instruments};

/// Options for opening a journal.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The directory. It is created if it is missing. One process at a time can use it.
    pub dir: PathBuf,
    /// The ThingSpace that changes are sent to. A journal keeps the origin of its first start.
    pub origin: Origin,
    /// Permits a network file system, where SQLite's locks and fsync are not reliable.
    pub allow_network_filesystem: bool,
    /// Metrics of writes and commits.
    pub instruments: Instruments,
}
