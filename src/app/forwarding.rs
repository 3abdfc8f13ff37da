//! Passing callbacks on, as the settings want it.

use std::sync::Arc;

use secrecy::SecretString;

use super::secrets::ReloadingSecret;
use crate::{
    background::{Destination, DestinationSource, Forwarder},
    config::Config,
    domain::clock::Clock,
    journal::Journal,
    telemetry::Instruments,
};

/// The webhook, as it was last read.
struct WebhookProvider {
    url: Arc<ReloadingSecret>,
    credentials: Option<(Arc<ReloadingSecret>, Arc<ReloadingSecret>)>,
}

/// What passes callbacks on, where there is a webhook; and the secrets that are to be read anew.
pub(super) fn build_forwarder(
    config: &Config,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    steady: Arc<dyn Clock>,
    instruments: Instruments,
) -> Option<(Forwarder, Vec<Arc<ReloadingSecret>>)> {
    let callbacks = &config.callbacks;
    let Some(url) = &callbacks.forward_url else {
        let waiting = journal.forward_queue_stats().waiting;
        if waiting > 0 {
            tracing::warn!(
                waiting,
                "callbacks wait to be passed on, and callbacks.forward_url is not set"
            );
        }
        return None;
    };
    let url = ReloadingSecret::new(url);
    let pair = callbacks.username.as_ref().zip(callbacks.password.as_ref());
    let login = pair.map(|(username, password)| {
        (
            ReloadingSecret::new(username),
            ReloadingSecret::new(password),
        )
    });
    let mut secrets = vec![Arc::clone(&url)];
    if let Some((username, password)) = &login {
        secrets.extend([Arc::clone(username), Arc::clone(password)]);
    }
    let forwarder = Forwarder::new(
        Arc::clone(journal),
        Arc::clone(clock),
        steady,
        Arc::new(WebhookProvider {
            url,
            credentials: login,
        }),
        instruments,
        callbacks.forward_max_age,
    );
    Some((forwarder, secrets))
}

// === impl FromSettings ===

impl DestinationSource for WebhookProvider {
    fn current(&self) -> Destination {
        let now = |fresh: &ReloadingSecret| -> SecretString { fresh.value().as_ref().clone() };
        Destination {
            url: now(&self.url),
            credentials: self
                .credentials
                .as_ref()
                .map(|(username, password)| (now(username), now(password))),
        }
    }
}
