//! The listener guard, as the settings want it.

use std::sync::Arc;

use url::Url;

use crate::{
    background::{
        DesiredListener, DesiredListenerSource, RegisterPolicy, Registrar, RegistrationMonitor,
    },
    config::{self, Config, Secret},
    domain::clock::Clock,
    journal::Journal,
    telemetry::Instruments,
    thingspace::ThingSpace,
};

/// The listener's address, read at each look.
struct ListenerProvider {
    public_url: Url,
    callbacks: config::CallbacksConfig,
}

/// A guard, where accounts and an address are set.
pub(super) fn build_registration_monitor(
    config: &Config,
    journal: &Arc<dyn Journal>,
    thingspace: &Arc<ThingSpace>,
    clock: &Arc<dyn Clock>,
    instruments: Instruments,
) -> Option<RegistrationMonitor> {
    let accounts = config.thingspace.accounts.clone();
    let public_url = config.callbacks.public_url.clone()?;
    if accounts.is_empty() {
        return None;
    }
    let registrar = Registrar {
        journal: Arc::clone(journal),
        thingspace: Arc::clone(thingspace),
        clock: Arc::clone(clock),
        desired: Arc::new(ListenerProvider {
            public_url,
            callbacks: config.callbacks.clone(),
        }),
        policy: match config.callbacks.register {
            config::RegisterPolicy::Never => RegisterPolicy::Never,
            config::RegisterPolicy::IfUnclaimed => RegisterPolicy::IfUnclaimed,
            config::RegisterPolicy::Replace => RegisterPolicy::Replace,
        },
        instruments,
    };
    Some(RegistrationMonitor::new(registrar, accounts))
}

// === impl FromSettings ===

impl DesiredListenerSource for ListenerProvider {
    fn load(&self) -> Result<DesiredListener, String> {
        let read = |key: &str, secret: &Option<Secret>| {
            let read = secret.as_ref().map(Secret::load).transpose();
            read.map_err(|error| format!("{key}: {error}"))
        };
        let callbacks = &self.callbacks;
        let username = read("callbacks.username", &callbacks.username)?;
        let password = read("callbacks.password", &callbacks.password)?;
        Ok(DesiredListener {
            public_url: self.public_url.clone(),
            path_secret: read("callbacks.path_secret", &callbacks.path_secret)?,
            credentials: username.zip(password),
        })
    }
}
