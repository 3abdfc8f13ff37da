//! Re-reads files with secrets and certificates while the gateway runs.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;
use secrecy::SecretString;
use tokio::{task::spawn_blocking, time::sleep};

use crate::config::Secret;

/// Interval between two reads of the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Reloads values every two seconds.
#[derive(Default)]
pub struct FileReloader(Vec<Arc<dyn Fn() + Send + Sync>>);

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
    /// succeeds.
    pub fn add<E: Display>(&mut self, reload: impl Fn() -> Result<(), E> + Send + Sync + 'static) {
        let is_failing = AtomicBool::new(false);
        self.0.push(Arc::new(move || match reload() {
            Ok(()) => is_failing.store(false, Relaxed),
            Err(error) if !is_failing.swap(true, Relaxed) => {
                tracing::warn!(%error, "cannot reload a file; its last valid content stays in use");
            }
            Err(_) => {}
        }));
    }

    /// Reads a secret. If it comes from a file, adds it to the values to reload.
    pub fn secret(&mut self, secret: &Secret) -> Arc<ReloadingSecret> {
        // The configuration check has read the file, so this fails only if the file has just changed.
        let value = secret.load().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read a secret; nothing matches it until its file is readable");
            SecretString::from(uuid::Uuid::new_v4().to_string())
        });
        let current = Arc::new(ReloadingSecret(RwLock::new(Arc::new(value))));
        if secret.path().is_some() {
            let (secret, reloading) = (secret.clone(), Arc::clone(&current));
            self.add(move || secret.load().map(|value| *reloading.0.write() = Arc::new(value)));
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

    /// Reloads the values.
    pub async fn run(self) {
        loop {
            sleep(RELOAD_INTERVAL).await;
            let reloads = self.0.clone();
            let reloaded = spawn_blocking(move || reloads.iter().for_each(|reload| reload()));
            if let Err(error) = reloaded.await {
                tracing::error!(%error, "cannot reload files");
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
