//! Checks the registered callback listeners of each account.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    background::{
        registration::{desired_listener::DesiredListener, registrar::Registrar},
        url_origin::url_origin,
    },
    config::{CallbacksConfig, Config, RegisterPolicy},
    domain::{clock::Clock, evidence::ResultService, newtypes::AccountName},
    journal::Journal,
    telemetry::{Instruments, RegistrationState},
    thingspace::{ListenerRegistration, LookupError, ThingSpace},
};

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// Monitors the registrations of all accounts in `thingspace.accounts`.
pub struct RegistrationMonitor {
    registrar: Registrar,
    callbacks: CallbacksConfig,
    public_url: Url,
    accounts: Vec<MonitoredAccount>,
}

/// An account and the result of its last check.
struct MonitoredAccount {
    account: AccountName,
    is_failing: bool,
    services: [MonitoredService; ResultService::ALL.len()],
}

/// A service and the result of its last check.
struct MonitoredService {
    name: &'static str,
    status: RegistrationState,
    /// Status and URL origin of the last message: the same message is not logged twice in a row.
    last_logged: Option<(RegistrationState, String)>,
    /// A failed registration was logged and has not succeeded since.
    has_logged_failure: bool,
    /// The correct credentials were registered. If ThingSpace's list does not show them, they are not
    /// registered again and again.
    has_renewed_credentials: bool,
}

/// A check that did not complete.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("{0}")]
    Desired(String),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

// === impl RegistrationMonitor ===

impl RegistrationMonitor {
    /// Creates a monitor. Returns `None` unless `callbacks.public_url` and `thingspace.accounts` are
    /// set.
    pub fn new(
        config: &Config,
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Option<Self> {
        let public_url = config.callbacks.public_url.clone()?;
        let mut accounts: Vec<MonitoredAccount> = Vec::new();
        for account in &config.thingspace.accounts {
            if accounts.iter().all(|other| other.account != *account) {
                accounts.push(MonitoredAccount::new(account.clone()));
            }
        }
        (!accounts.is_empty()).then(|| Self {
            registrar: Registrar { journal, thingspace, clock, instruments },
            callbacks: config.callbacks.clone(),
            public_url,
            accounts,
        })
    }

    /// Checks at once and then every five minutes, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.record_metrics();
        let checks = async {
            loop {
                self.check().await;
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = checks => {}
        }
    }

    async fn check(&mut self) {
        for monitored in &mut self.accounts {
            // Loaded for each check, so that a rotated secret takes effect.
            let result = match DesiredListener::load(&self.public_url, &self.callbacks) {
                Ok(desired) => {
                    let policy = self.callbacks.register;
                    monitored.check(&self.registrar, &desired, policy).await
                }
                Err(error) => Err(CheckError::Desired(error)),
            };
            match result {
                Ok(()) => monitored.is_failing = false,
                Err(error) => monitored.mark_unknown(&error),
            }
        }
        self.record_metrics();
    }

    fn record_metrics(&self) {
        let services = || self.accounts.iter().flat_map(|account| &account.services);
        for status in RegistrationState::ALL {
            let count = services().filter(|service| service.status == status).count();
            self.registrar.instruments.registrations(status, count);
        }
    }
}

// === impl MonitoredAccount ===

impl MonitoredAccount {
    fn new(account: AccountName) -> Self {
        Self {
            account,
            is_failing: false,
            services: ResultService::ALL.map(|service| MonitoredService {
                name: service.as_str(),
                status: RegistrationState::Unknown,
                last_logged: None,
                has_logged_failure: false,
                has_renewed_credentials: false,
            }),
        }
    }

    async fn check(
        &mut self,
        registrar: &Registrar,
        desired: &DesiredListener,
        policy: RegisterPolicy,
    ) -> Result<(), CheckError> {
        let mut listed = registrar.list(&self.account).await?;
        let mut has_registered = false;
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            if service.should_register(policy, status) {
                let displaced = found.filter(|_| status == RegistrationState::OtherUrl);
                let new = desired.registration(&self.account, service.name);
                let result = registrar.register(&self.account, &new, displaced).await;
                service.record_attempt(&self.account, status, &result);
                has_registered |= result.is_ok();
            }
        }
        if has_registered {
            // A success response does not prove that the registration is in effect.
            listed = registrar.list(&self.account).await?;
        }
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            service.update_status(&self.account, status, found);
        }
        Ok(())
    }

    fn mark_unknown(&mut self, error: &CheckError) {
        for service in &mut self.services {
            service.status = RegistrationState::Unknown;
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            let account = self.account.as_str();
            tracing::warn!(account, %error, "cannot list the registered callback listeners");
        }
    }
}

// === impl MonitoredService ===

impl MonitoredService {
    fn should_register(&self, policy: RegisterPolicy, status: RegistrationState) -> bool {
        match (policy, status) {
            (_, RegistrationState::Registered | RegistrationState::Unknown)
            | (RegisterPolicy::Never, _) => false,
            (RegisterPolicy::IfUnclaimed, status) => status == RegistrationState::Missing,
            (RegisterPolicy::Replace, RegistrationState::WrongCredentials) => {
                !self.has_renewed_credentials
            }
            (RegisterPolicy::Replace, RegistrationState::Missing | RegistrationState::OtherUrl) => {
                true
            }
        }
    }

    /// Logs the result of a registration. Logs repeated failures once.
    fn record_attempt(
        &mut self,
        account: &AccountName,
        before: RegistrationState,
        result: &Result<(), String>,
    ) {
        let (account, service) = (account.as_str(), self.name);
        match result {
            Ok(()) => {
                self.has_logged_failure = false;
                self.has_renewed_credentials |= before == RegistrationState::WrongCredentials;
                tracing::info!(account, service, "registered this callback listener");
            }
            Err(error) if !self.has_logged_failure => {
                self.has_logged_failure = true;
                tracing::warn!(account, service, error, "cannot register this callback listener");
            }
            Err(_) => {}
        }
    }

    /// Stores the status, and logs it if it has changed.
    fn update_status(
        &mut self,
        account: &AccountName,
        status: RegistrationState,
        found: Option<&ListenerRegistration>,
    ) {
        self.status = status;
        self.has_renewed_credentials &= status == RegistrationState::WrongCredentials;
        let url_origin =
            found.map(|found| url_origin(found.url.expose_secret())).unwrap_or_default();
        let current = Some((status, url_origin.clone()));
        if self.last_logged == current {
            return;
        }
        self.last_logged = current;
        let (account, service) = (account.as_str(), self.name);
        match status {
            RegistrationState::Registered => {
                tracing::info!(account, service, "this callback listener is registered");
            }
            RegistrationState::WrongCredentials => {
                tracing::warn!(
                    account,
                    service,
                    "this callback listener is registered, but not with callbacks.username and \
                     callbacks.password"
                );
            }
            RegistrationState::OtherUrl => {
                tracing::warn!(
                    account,
                    service,
                    url_origin,
                    "another callback listener is registered"
                );
            }
            RegistrationState::Missing | RegistrationState::Unknown => {
                tracing::warn!(account, service, "no callback listener is registered");
            }
        }
    }
}

#[cfg(test)]
mod tests;
