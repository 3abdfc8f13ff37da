//! Passing callbacks on, as the settings want it.

use std::{net::SocketAddr, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::secrets::Fresh;
use crate::{
    background::{Destination, DestinationSource, Forwarder},
    config::{Config, Itself},
    domain::clock::Clock,
    journal::Journal,
    telemetry::Instruments,
};

/// The webhook, as it was last read.
struct FromSettings {
    url: Arc<Fresh>,
    login: Option<(Arc<Fresh>, Arc<Fresh>)>,
    itself: Itself,
}

/// What passes callbacks on, where there is a webhook; and the secrets that are to be read anew.
/// `listen`: where ThingSpace's callbacks come in.
pub(super) fn forwarder(
    config: &Config,
    listen: SocketAddr,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    steady: Arc<dyn Clock>,
    instruments: Instruments,
) -> Option<(Forwarder, Vec<Arc<Fresh>>)> {
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
        steady,
        Arc::new(FromSettings {
            url,
            login,
            itself: config.itself(listen),
        }),
        instruments,
        callbacks.forward_max_age,
    );
    Some((forwarder, fresh))
}

// === impl FromSettings ===

impl DestinationSource for FromSettings {
    fn read(&self) -> Destination {
        let now = |fresh: &Fresh| -> SecretString { fresh.now().as_ref().clone() };
        let url = now(&self.url);
        // The settings were checked, and a file may have changed since.
        let filled = url.expose_secret().replace("{service}", "CarrierService");
        let named = |url: Url| self.itself.named_by(&url).is_some();
        Destination {
            is_itself: Url::parse(&filled).is_ok_and(named),
            url,
            login: self
                .login
                .as_ref()
                .map(|(username, password)| (now(username), now(password))),
        }
    }
}
