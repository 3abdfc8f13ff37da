//! Divides the file descriptors of the process between the ports.
//!
//! Without a division, the connections of one port would take the descriptors of the others, and of the journal.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum number of open connections of each port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The gRPC server.
    pub grpc: usize,
    /// The callback listener.
    pub callbacks: usize,
    /// The admin port.
    pub admin: usize,
    /// The console. 0 if it is off.
    pub console: usize,
}

/// The process may not open enough files for a useful gateway.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process may open {available} files, and a gateway needs {MIN_DESCRIPTORS}: raise the hard limit of open \
     files (RLIMIT_NOFILE; `ulimit -n`, `LimitNOFILE=` of systemd)"
)]
pub struct TooFewDescriptors {
    available: usize,
}

/// Smallest number of descriptors with which a gateway starts.
const MIN_DESCRIPTORS: usize = 1_024;
/// Descriptors for everything but the connections of the ports: 256 requests to ThingSpace, 60 lookups, 32 forwarded
/// callbacks, the connections to the database, files, pipes, and connections that are being closed.
const RESERVED: usize = 768;

impl ConnectionLimits {
    /// The limits with enough descriptors.
    pub const FULL: Self = Self { grpc: 10_000, callbacks: 8_192, admin: 256, console: 0 };

    /// The limit of the console with enough descriptors.
    pub const FULL_CONSOLE: usize = 64;

    /// Divides the descriptors that the process may open. With too few of them, all ports have smaller limits.
    ///
    /// # Errors
    ///
    /// [`TooFewDescriptors`] if the process may open fewer than 1,024 files.
    pub fn reserve(has_console: bool) -> Result<Self, TooFewDescriptors> {
        // `None` means no limit.
        let available = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        let full = Self::full(has_console);
        let limits = Self::divide(available, full)?;
        let Self { grpc, callbacks, admin, console } = limits;
        if limits == full {
            tracing::debug!(available, grpc, callbacks, admin, console, "limits of connections");
        } else {
            let needed = full.sum() + RESERVED;
            tracing::warn!(
                available,
                needed,
                grpc,
                callbacks,
                admin,
                console,
                "the ports have smaller connection limits: raise the hard limit of open files (RLIMIT_NOFILE)"
            );
        }
        Ok(limits)
    }

    fn full(has_console: bool) -> Self {
        Self { console: if has_console { Self::FULL_CONSOLE } else { 0 }, ..Self::FULL }
    }

    /// Divides this number of descriptors.
    fn divide(available: usize, full: Self) -> Result<Self, TooFewDescriptors> {
        if available < MIN_DESCRIPTORS {
            return Err(TooFewDescriptors { available });
        }
        // The smallest number leaves 640 for the other files.
        let reserved = RESERVED.min(available * 5 / 8);
        let ports = available - reserved;
        if ports >= full.sum() {
            return Ok(full);
        }
        // Monitoring and the console need few connections, but always some.
        let (admin, console) = (full.admin.min(ports / 8), full.console.min(ports / 16));
        let (rest, of) = (ports - admin - console, full.grpc + full.callbacks);
        let grpc = rest.saturating_mul(full.grpc) / of;
        Ok(Self { grpc, callbacks: rest - grpc, admin, console })
    }

    const fn sum(self) -> usize {
        self.grpc + self.callbacks + self.admin + self.console
    }
}

/// Raises the soft limit of open files to the hard limit: every connection needs one, and shells set a low soft
/// limit.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the soft limit of open files (RLIMIT_NOFILE)");
    }
}

#[cfg(test)]
mod tests;
