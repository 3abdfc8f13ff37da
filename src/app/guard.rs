//! The listener guard, as the settings want it.

use std::sync::Arc;

use url::Url;

use crate::{
    background::{Guard, Means, Own, OwnSource, Register},
    config::{self, Config, Secret},
    domain::{clock::Clock, newtypes::AccountName},
    journal::Journal,
    telemetry::Instruments,
    thingspace::ThingSpace,
};

/// The listener's address, read at each look.
struct FromSettings {
    public_url: Url,
    callbacks: config::Callbacks,
}

/// A guard, where accounts and an address are set.
pub(super) fn guard(
    config: &Config,
    journal: &Arc<dyn Journal>,
    thingspace: &Arc<ThingSpace>,
    clock: &Arc<dyn Clock>,
    instruments: Instruments,
) -> Option<Guard> {
    // The settings have the same rule for an account.
    let accounts = config.thingspace.accounts.iter();
    let accounts: Vec<AccountName> = accounts
        .filter_map(|name| AccountName::parse(name).ok())
        .collect();
    let public_url = config.callbacks.public_url.clone()?;
    if accounts.is_empty() {
        return None;
    }
    let means = Means {
        journal: Arc::clone(journal),
        thingspace: Arc::clone(thingspace),
        clock: Arc::clone(clock),
        own: Arc::new(FromSettings {
            public_url,
            callbacks: config.callbacks.clone(),
        }),
        register: match config.callbacks.register {
            config::Register::Never => Register::Never,
            config::Register::IfUnclaimed => Register::IfUnclaimed,
            config::Register::Replace => Register::Replace,
        },
        instruments,
    };
    Some(Guard::new(means, accounts))
}

// === impl FromSettings ===

impl OwnSource for FromSettings {
    fn read(&self) -> Result<Own, String> {
        let read = |key: &str, secret: &Option<Secret>| {
            let read = secret.as_ref().map(Secret::read).transpose();
            read.map_err(|error| format!("{key}: {error}"))
        };
        let callbacks = &self.callbacks;
        let username = read("callbacks.username", &callbacks.username)?;
        let password = read("callbacks.password", &callbacks.password)?;
        Ok(Own {
            public_url: self.public_url.clone(),
            path_secret: read("callbacks.path_secret", &callbacks.path_secret)?,
            login: username.zip(password),
        })
    }
}
