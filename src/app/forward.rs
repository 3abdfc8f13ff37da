//! Passing callbacks on, as the settings want it.

use std::sync::Arc;

use secrecy::SecretString;

use super::secrets::Fresh;
use crate::{
    config::Config,
    domain::clock::Clock,
    journal::Journal,
    telemetry::Instruments,
    upkeep::{Destination, DestinationSource, Forwarder},
};

/// The webhook, as it was last read.
struct FromSettings {
    url: Arc<Fresh>,
    login: Option<(Arc<Fresh>, Arc<Fresh>)>,
}

/// What passes callbacks on, where there is a webhook; and the secrets that are to be read anew.
pub(super) fn forwarder(
    config: &Config,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    instruments: Instruments,
) -> Option<(Forwarder, Vec<Arc<Fresh>>)> {
    let callbacks = &config.callbacks;
    let Some(url) = &callbacks.forward_url else {
        let waiting = journal.forwards().waiting;
        if waiting > 0 {
            tracing::warn!(
                waiting,
                "callbacks wait to be passed on, and callbacks.forward_url is not set"
            );
        }
        return None;
    };
    let url = Fresh::new(url);
    let pair = callbacks.username.as_ref().zip(callbacks.password.as_ref());
    let login = pair.map(|(username, password)| (Fresh::new(username), Fresh::new(password)));
    let mut fresh = vec![Arc::clone(&url)];
    if let Some((username, password)) = &login {
        fresh.extend([Arc::clone(username), Arc::clone(password)]);
    }
    let forwarder = Forwarder::new(
        Arc::clone(journal),
        Arc::clone(clock),
        Arc::new(FromSettings { url, login }),
        instruments,
        callbacks.forward_max_age,
    );
    Some((forwarder, fresh))
}

// === impl FromSettings ===

impl DestinationSource for FromSettings {
    fn read(&self) -> Destination {
        let now = |fresh: &Fresh| -> SecretString { fresh.now().as_ref().clone() };
        Destination {
            url: now(&self.url),
            login: self
                .login
                .as_ref()
                .map(|(username, password)| (now(username), now(password))),
        }
    }
}
