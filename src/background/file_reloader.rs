//! Re-reads files with secrets and certificates while the gateway runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::config::Secret;

/// Interval between two reads of the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A value that comes from files and keeps its last valid content.
pub trait Reload: Send + Sync {
    /// Reads the files again. Blocks. Logs an error once until it is resolved.
    fn reload(&self);
}

/// Reloads values every two seconds.
#[derive(Clone, Default)]
pub struct FileReloader(Vec<Arc<dyn Reload>>);

/// A secret as it was last read. If its file becomes unreadable, it keeps its value.
pub struct ReloadingSecret {
    secret: Secret,
    value: RwLock<Arc<SecretString>>,
    is_failing: AtomicBool,
}

// === impl FileReloader ===

impl FileReloader {
    /// Adds a value to reload.
    pub fn add(&mut self, target: Arc<dyn Reload>) {
        self.0.push(target);
    }

    /// Reads a secret. If it comes from a file, adds it to the values to reload.
    pub fn secret(&mut self, secret: &Secret) -> Arc<ReloadingSecret> {
        let reloading = Arc::new(ReloadingSecret::new(secret));
        if secret.path().is_some() {
            self.add(Arc::<ReloadingSecret>::clone(&reloading));
        }
        reloading
    }

    /// Reloads the values until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            }
            let targets = self.0.clone();
            let reloaded = tokio::task::spawn_blocking(move || {
                for target in &targets {
                    target.reload();
                }
            });
            if let Err(error) = reloaded.await {
                tracing::error!(%error, "cannot reload files");
            }
        }
    }
}

// === impl ReloadingSecret ===

impl ReloadingSecret {
    fn new(secret: &Secret) -> Self {
        // The configuration check has read the file, so this fails only if the file has just changed.
        let value = secret.load().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read a secret; nothing matches it until its file is readable");
            SecretString::from(uuid::Uuid::new_v4().to_string())
        });
        Self {
            secret: secret.clone(),
            value: RwLock::new(Arc::new(value)),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Returns the secret as it was last read. Does not block.
    pub fn current(&self) -> Arc<SecretString> {
        Arc::clone(&self.value.read())
    }
}

impl Reload for ReloadingSecret {
    fn reload(&self) {
        match self.secret.load() {
            Ok(value) => {
                *self.value.write() = Arc::new(value);
                self.is_failing.store(false, Relaxed);
            }
            Err(error) if !self.is_failing.swap(true, Relaxed) => {
                tracing::warn!(%error, "cannot reload a secret; the last value stays in use");
            }
            Err(_) => {}
        }
    }
}
