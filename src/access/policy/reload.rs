//! Keeps the policy in step with its file.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    access::policy::{
        error::PolicyErrors,
        policy::{Policy, read},
    },
    background::FileReloader,
    telemetry::{Instruments, PolicyReloadOutcome},
};

/// Maximum number of errors of one file that are logged.
const MAX_LOGGED_ERRORS: usize = 20;

/// A policy that follows its file. A file with errors leaves the last valid policy in force.
pub struct ReloadingPolicy {
    path: PathBuf,
    current: watch::Sender<Arc<Policy>>,
    reads: Mutex<Reads>,
    instruments: Instruments,
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLoadError {
    /// The file cannot be read.
    #[error("cannot read the policy file {}: {source}", .path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file has errors. `Display` has one line for each.
    #[error("{}", format_errors(.path, .errors))]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// All errors.
        errors: PolicyErrors,
    },
}

/// The results of earlier reads.
struct Reads {
    /// Content of the policy in force.
    in_force: Vec<u8>,
    /// The content, or the error, of the last read, if it is not in force.
    rejected: Option<Result<Vec<u8>, String>>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has errors.
    pub fn load(path: &Path) -> Result<Self, PolicyLoadError> {
        load(path).map(|(policy, _content)| policy)
    }
}

impl ReloadingPolicy {
    /// Reads the policy file, and adds it to the files that are read again. A change of the file is in
    /// force within 5 s.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has errors.
    pub fn load(
        path: &Path,
        files: &mut FileReloader,
        instruments: Instruments,
    ) -> Result<Arc<Self>, PolicyLoadError> {
        let this = Arc::new(Self::new(path, instruments)?);
        let reloading = Arc::clone(&this);
        files.add("auth.policy_file", move || {
            reloading.reload();
            Ok::<(), Infallible>(())
        });
        Ok(this)
    }

    fn new(path: &Path, instruments: Instruments) -> Result<Self, PolicyLoadError> {
        let (policy, in_force) = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            current: watch::Sender::new(Arc::new(policy)),
            reads: Mutex::new(Reads { in_force, rejected: None }),
            instruments,
        })
    }

    /// Returns the policy in force.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.current.borrow())
    }

    /// Returns a receiver of the policy in force and of its successors.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Policy>> {
        self.current.subscribe()
    }

    /// Reads the file again. Blocks.
    pub fn reload(&self) {
        let mut reads = self.reads.lock();
        let read = read(&self.path).map_err(|error| error.to_string());
        if reads.rejected.as_ref() == Some(&read) {
            return;
        }
        if read.as_ref().is_ok_and(|bytes| *bytes == reads.in_force) {
            if reads.rejected.take().is_some() {
                self.instruments.policy_stale(false);
                tracing::info!("the policy file is the policy in force again");
            }
            return;
        }
        match &read {
            Ok(bytes) => match parse(bytes) {
                Ok(policy) => {
                    let callers = policy.callers().len();
                    self.current.send_replace(Arc::new(policy));
                    *reads = Reads { in_force: read.unwrap_or_default(), rejected: None };
                    self.instruments.policy_reload(PolicyReloadOutcome::Applied);
                    self.instruments.policy_stale(false);
                    tracing::info!(callers, "a new policy is in force");
                    return;
                }
                Err(errors) => self.log_errors(&errors),
            },
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "cannot read the policy file; the last valid policy stays in force");
            }
        }
        reads.rejected = Some(read);
        self.instruments.policy_reload(PolicyReloadOutcome::Rejected);
        self.instruments.policy_stale(true);
    }

    fn log_errors(&self, errors: &PolicyErrors) {
        let path = self.path.display();
        for error in errors.iter().take(MAX_LOGGED_ERRORS) {
            tracing::error!(%path, %error, "error in the policy file");
        }
        let errors = errors.count();
        tracing::error!(%path, errors, "cannot use the policy file; the last valid policy stays in force");
    }
}

/// Reads a file. Returns its policy and its content.
fn load(path: &Path) -> Result<(Policy, Vec<u8>), PolicyLoadError> {
    let unreadable = |source| PolicyLoadError::Unreadable { path: path.to_owned(), source };
    let content = read(path).map_err(unreadable)?;
    match parse(&content) {
        Ok(policy) => Ok((policy, content)),
        Err(errors) => Err(PolicyLoadError::Invalid { path: path.to_owned(), errors }),
    }
}

fn parse(bytes: &[u8]) -> Result<Policy, PolicyErrors> {
    match str::from_utf8(bytes) {
        Ok(text) => Policy::parse(text),
        Err(_) => Err(PolicyErrors::of_file("expected UTF-8 text".to_owned())),
    }
}

fn format_errors(path: &Path, errors: &PolicyErrors) -> String {
    format!("the policy file {} has {} errors:\n{errors}", path.display(), errors.count())
}

#[cfg(test)]
mod tests;
