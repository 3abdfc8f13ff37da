//! Secrets from the settings, for those who use them.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::RwLock;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::{
    callbacks::{self, CallbackCredentials, SecretSource},
    config::{self, Config, Secret},
    operations::WireSettings,
    thingspace::{self, CredentialSource, FailedLoginStore, ThingSpaceCredentials},
};

/// How often files with secrets are read anew.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// A secret as it was last read. One whose file is unreadable for a moment
/// stays as it was.
pub(super) struct ReloadingSecret {
    secret: Secret,
    value: RwLock<Arc<SecretString>>,
}

/// The four credentials, read at each log-in.
#[derive(Debug)]
struct CredentialsProvider(config::ThingSpaceConfig);

// === impl Fresh ===

impl ReloadingSecret {
    pub(super) fn new(secret: &Secret) -> Arc<Self> {
        // The settings were checked: this can only fail in the moment between.
        let value = secret.load().unwrap_or_else(|error| {
            tracing::error!(%error, "a secret cannot be read");
            SecretString::from(uuid::Uuid::new_v4().to_string())
        });
        Arc::new(Self {
            secret: secret.clone(),
            value: RwLock::new(Arc::new(value)),
        })
    }

    /// As it was last read.
    pub(super) fn value(&self) -> Arc<SecretString> {
        Arc::clone(&self.value.read())
    }

    fn refresh(&self) {
        match self.secret.load() {
            Ok(value) => *self.value.write() = Arc::new(value),
            Err(error) => tracing::warn!(%error, "a secret cannot be read; the last one stays"),
        }
    }
}

impl SecretSource for ReloadingSecret {
    fn current(&self) -> Arc<SecretString> {
        self.value()
    }
}

/// Reads secrets from files anew, until `stop`.
pub(super) async fn refresh(secrets: Vec<Arc<ReloadingSecret>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REFRESH_INTERVAL) => {}
        }
        let secrets = secrets.clone();
        let read = tokio::task::spawn_blocking(move || {
            for secret in &secrets {
                secret.refresh();
            }
        });
        if let Err(error) = read.await {
            tracing::error!(%error, "secrets could not be read anew");
        }
    }
}

/// What the settings say to the listener, and the secrets in it that come from
/// files.
pub(super) fn callback_settings(
    config: &Config,
) -> (callbacks::CallbackSettings, Vec<Arc<ReloadingSecret>>) {
    let callbacks = &config.callbacks;
    let mut reloading = Vec::new();
    let mut source = |secret: &Secret| -> Arc<dyn SecretSource> {
        let source = ReloadingSecret::new(secret);
        if secret.path().is_some() {
            reloading.push(Arc::clone(&source));
        }
        source
    };
    let mut pair = |username: &Option<Secret>, password: &Option<Secret>| {
        Some(CallbackCredentials {
            username: source(username.as_ref()?),
            password: source(password.as_ref()?),
        })
    };
    let current = pair(&callbacks.username, &callbacks.password);
    let previous = pair(&callbacks.previous_username, &callbacks.previous_password);
    let settings = callbacks::CallbackSettings {
        path_secret: callbacks.path_secret.as_ref().map(source),
        credentials: current,
        previous_credentials: previous,
        require_password: callbacks
            .require_password
            .iter()
            .map(ToString::to_string)
            .collect(),
        allow_cidrs: callbacks.allow_cidrs.clone(),
        allow_mode: match callbacks.allow_mode {
            config::AllowMode::Report => callbacks::AllowMode::Report,
            config::AllowMode::Enforce => callbacks::AllowMode::Enforce,
        },
        trusted_hops: callbacks.trusted_hops,
        quarantine_max_bytes: callbacks.quarantine_max_bytes,
        max_inflight_body_bytes: config.limits.callback_bytes,
        max_queued_forwards: callbacks
            .forward_url
            .as_ref()
            .map(|_| callbacks.forward_max_waiting),
        tls: callbacks
            .tls_cert_file
            .clone()
            .zip(callbacks.tls_key_file.clone())
            .map(|(certificates, key)| callbacks::TlsFiles { certificates, key }),
        ..callbacks::CallbackSettings::default()
    };
    (settings, reloading)
}

/// What the settings say to the client of ThingSpace.
pub(super) fn thingspace_settings(
    config: &Config,
    failed_logins: Arc<dyn FailedLoginStore>,
) -> thingspace::ThingSpaceSettings {
    thingspace::ThingSpaceSettings {
        base_url: config.thingspace.base_url.clone(),
        wire: WireSettings {
            five_g_bi_http_method: config.thingspace.five_g_bi_http_method,
        },
        request_timeout: config.thingspace.request_timeout,
        credentials: Arc::new(CredentialsProvider(config.thingspace.clone())),
        failed_logins,
        changes_per_minute: NonZeroU32::new(config.thingspace.changes_per_minute)
            .unwrap_or(NonZeroU32::MIN),
        lookups_per_minute: NonZeroU32::new(config.thingspace.lookups_per_minute)
            .unwrap_or(NonZeroU32::MIN),
    }
}

// === impl FromSettings ===

impl CredentialSource for CredentialsProvider {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let read = |key: &str, secret: &Option<Secret>| {
            let secret = secret.as_ref().ok_or(format!("{key} is not set"))?;
            secret.load().map_err(|error| format!("{key}: {error}"))
        };
        Ok(ThingSpaceCredentials {
            app_key: read("thingspace.app_key", &self.0.app_key)?,
            app_secret: read("thingspace.app_secret", &self.0.app_secret)?,
            uws_username: read("thingspace.uws_username", &self.0.uws_username)?,
            uws_password: read("thingspace.uws_password", &self.0.uws_password)?,
        })
    }
}
