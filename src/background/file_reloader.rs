//! Re-reads files with secrets and certificates while the gateway runs.

use std::{
    fmt::Display,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::RwLock;
use secrecy::SecretString;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::config::Secret;

/// Interval between two reads of a file.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Duration of a read after which a warning is logged. The file system does not respond.
const SLOW_READ: Duration = Duration::from_secs(30);

/// Reloads values every two seconds. A file that cannot be read, or whose read does not end, does not delay the others.
#[derive(Default)]
pub struct FileReloader(Vec<Reload>);

/// One file, or several that are read together.
struct Reload {
    /// The setting that names the file, or the path of the file.
    name: String,
    read: Arc<dyn Fn() + Send + Sync>,
}

/// A secret as it was last read. If its file becomes unreadable, it keeps its value.
pub struct ReloadingSecret(RwLock<Arc<SecretString>>);

/// A user name and a password.
pub struct ReloadingCredentials {
    /// The user name.
    pub username: Arc<ReloadingSecret>,
    /// The password.
    pub password: Arc<ReloadingSecret>,
}

// === impl FileReloader ===

impl FileReloader {
    /// Adds a function that reads files again. It may block. Its error is logged once until it
    /// succeeds. `name` is the setting that names the file, or its path.
    pub fn add<E: Display>(
        &mut self,
        name: impl Into<String>,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let is_failing = AtomicBool::new(false);
        let read = move || match reload() {
            Ok(()) => is_failing.store(false, Relaxed),
            Err(error) if !is_failing.swap(true, Relaxed) => {
                tracing::warn!(%error, "cannot reload a file; its last valid content stays in use");
            }
            Err(_) => {}
        };
        self.0.push(Reload { name: name.into(), read: Arc::new(read) });
    }

    /// Reads a secret. If it comes from a file, adds it to the values to reload.
    pub fn secret(&mut self, secret: &Secret) -> Arc<ReloadingSecret> {
        // The configuration check has read the file, so this fails only if the file has just changed.
        let value = secret.load().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read a secret; nothing matches it until its file is readable");
            SecretString::from(uuid::Uuid::new_v4().to_string())
        });
        let current = Arc::new(ReloadingSecret(RwLock::new(Arc::new(value))));
        if let Some(path) = secret.path() {
            let name = path.display().to_string();
            let (secret, reloading) = (secret.clone(), Arc::clone(&current));
            self.add(name, move || {
                secret.load().map(|value| *reloading.0.write() = Arc::new(value))
            });
        }
        current
    }

    /// Reads a user name and a password, if both are set.
    pub fn credentials(
        &mut self,
        username: Option<&Secret>,
        password: Option<&Secret>,
    ) -> Option<ReloadingCredentials> {
        let (username, password) = username.zip(password)?;
        Some(ReloadingCredentials {
            username: self.secret(username),
            password: self.secret(password),
        })
    }

    /// Reloads the values. Never returns.
    pub async fn run(self) {
        join_all(self.0.iter().map(Reload::repeat)).await;
        // Without files.
        pending().await
    }
}

// === impl Reload ===

impl Reload {
    /// Reads the file again and again. There is one read at a time, on a thread for blocking calls.
    async fn repeat(&self) {
        let file = self.name.as_str();
        loop {
            sleep(RELOAD_INTERVAL).await;
            let read = Arc::clone(&self.read);
            let mut reading = spawn_blocking(move || read());
            let read = match timeout(SLOW_READ, &mut reading).await {
                Ok(read) => read,
                Err(_elapsed) => {
                    let seconds = SLOW_READ.as_secs();
                    tracing::warn!(
                        file,
                        "the read of a file takes more than {seconds} s; its last valid content stays in use until \
                         the file system responds"
                    );
                    let read = reading.await;
                    tracing::info!(file, "the read of a file has ended");
                    read
                }
            };
            if let Err(error) = read {
                tracing::error!(file, %error, "the reload of a file panicked; its last valid content stays in use");
            }
        }
    }
}

// === impl ReloadingSecret ===

impl ReloadingSecret {
    /// Returns the secret as it was last read. Does not block.
    pub fn current(&self) -> Arc<SecretString> {
        Arc::clone(&self.0.read())
    }
}

#[cfg(test)]
mod tests;
