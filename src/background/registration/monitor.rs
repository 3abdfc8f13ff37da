//! Checks and replaces the registered callback listeners of each account.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use crate::{
    background::{
        LeaderJob,
        registration::{
            desired_listener::DesiredListener,
            status::{self, StoredStatus},
        },
        url_origin::url_origin,
    },
    config::{CallbacksConfig, Config, RegisterPolicy},
    domain::{clock::Clock, evidence::ResultService, newtypes::AccountName},
    journal::{Journal, JournalError},
    telemetry::{Instruments, RegistrationOutcome, RegistrationState},
    thingspace::{ListenerRegistration, ThingSpace},
};

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// Maximum number of replaced URLs that are stored for each service.
const MAX_DISPLACED: usize = 16;

/// Monitors the registrations of all accounts in `thingspace.accounts`.
pub struct RegistrationMonitor {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    instruments: Instruments,
    callbacks: CallbacksConfig,
    public_url: Url,
    accounts: Vec<AccountName>,
}

/// An account and the result of its last check.
struct MonitoredAccount {
    account: AccountName,
    is_failing: bool,
    /// The error of the last check.
    error: Option<String>,
    services: [MonitoredService; ResultService::ALL.len()],
}

/// A service and the result of its last check.
struct MonitoredService {
    name: &'static str,
    status: RegistrationState,
    /// The error of the last attempt to register.
    error: Option<String>,
    /// Status and URL origin of the last message: the same message is not logged twice in a row.
    last_logged: Option<(RegistrationState, Option<String>)>,
    /// A failed registration was logged and has not succeeded since.
    has_logged_failure: bool,
    /// The correct credentials were registered. If ThingSpace's list does not show them, they are not
    /// registered again and again.
    has_renewed_credentials: bool,
}

// === impl RegistrationMonitor ===

impl LeaderJob for RegistrationMonitor {
    /// Checks at once and then every five minutes.
    async fn run(&mut self) {
        let accounts = self.accounts.iter().cloned();
        let mut accounts: Vec<_> = accounts.map(MonitoredAccount::new).collect();
        self.record_metrics(&accounts);
        loop {
            for account in &mut accounts {
                match account.check(self).await {
                    Ok(()) => account.mark_checked(),
                    Err(error) => account.mark_unknown(&error),
                }
            }
            self.record_metrics(&accounts);
            self.store_statuses(&accounts).await;
            sleep(CHECK_INTERVAL).await;
        }
    }
}

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
        let mut accounts = Vec::new();
        for account in &config.thingspace.accounts {
            if !accounts.contains(account) {
                accounts.push(account.clone());
            }
        }
        let callbacks = config.callbacks.clone();
        (!accounts.is_empty()).then_some(Self {
            journal,
            thingspace,
            clock,
            instruments,
            callbacks,
            public_url,
            accounts,
        })
    }

    fn record_metrics(&self, accounts: &[MonitoredAccount]) {
        let services = || accounts.iter().flat_map(|account| &account.services);
        for status in RegistrationState::ALL {
            let count = services().filter(|service| service.status == status).count();
            self.instruments.registrations(status, count);
        }
    }

    /// Stores the result of the checks for `GetStatus` of all replicas.
    async fn store_statuses(&self, accounts: &[MonitoredAccount]) {
        let now = self.clock.now();
        let statuses = accounts.iter().flat_map(|account| {
            account.services.iter().map(move |service| {
                let error = account.error.as_deref().or(service.error.as_deref());
                StoredStatus::new(&account.account, service.name, service.status, error, now)
            })
        });
        let statuses: Vec<_> = statuses.collect();
        if let Err(error) = status::store(&*self.journal, &statuses).await {
            tracing::debug!(%error, "cannot store the status of the registrations");
        }
    }

    /// Registers a listener. Stores the URL that it replaces first. Never deregisters: callbacks
    /// between a deregistration and the next registration would be lost.
    async fn register(
        &self,
        account: &AccountName,
        new: &ListenerRegistration,
        displaced: Option<&ListenerRegistration>,
    ) -> Result<(), String> {
        if let Some(displaced) = displaced {
            let stored = self.store_displaced(account, &new.service, &displaced.url).await;
            stored.map_err(|error| format!("cannot store the replaced URL: {error}"))?;
        }
        let result = self.thingspace.register_listener(account, new).await;
        self.instruments.registration_attempt(match (&result, displaced) {
            (Err(_), _) => RegistrationOutcome::Failed,
            (Ok(()), Some(_)) => RegistrationOutcome::Replaced,
            (Ok(()), None) => RegistrationOutcome::Registered,
        });
        if let (Ok(()), Some(displaced)) = (&result, displaced) {
            tracing::warn!(
                account = account.as_str(),
                service = new.service.as_str(),
                url_origin = url_origin(displaced.url.expose_secret()),
                "replaced the registration of another callback listener"
            );
        }
        result.map_err(|error| error.to_string())
    }

    /// Stores a whole URL in the journal: only the gateway's user can read its secrets there.
    async fn store_displaced(
        &self,
        account: &AccountName,
        service: &str,
        url: &SecretString,
    ) -> Result<(), JournalError> {
        let key = format!("displaced.{account}.{service}");
        let stored = self.journal.get_kv(key.clone()).await?;
        let mut urls: Vec<Value> = serde_json::from_slice(&stored).unwrap_or_default();
        let url = url.expose_secret();
        // A URL that is replaced again and again must not displace the others.
        urls.retain(|other| other.get("url").and_then(Value::as_str) != Some(url));
        urls.push(json!({ "displace_time_us": self.clock.now().as_micros(), "url": url }));
        let urls = urls.split_off(urls.len().saturating_sub(MAX_DISPLACED));
        self.journal.put_kv(key, Value::Array(urls).to_string().into()).await
    }
}

// === impl MonitoredAccount ===

impl MonitoredAccount {
    fn new(account: AccountName) -> Self {
        Self {
            account,
            is_failing: false,
            error: None,
            services: ResultService::ALL.map(|service| MonitoredService {
                name: service.as_str(),
                status: RegistrationState::Unknown,
                error: None,
                last_logged: None,
                has_logged_failure: false,
                has_renewed_credentials: false,
            }),
        }
    }

    async fn check(&mut self, monitor: &RegistrationMonitor) -> Result<(), String> {
        let callbacks = &monitor.callbacks;
        // Loaded for each check, so that a rotated secret takes effect.
        let desired = DesiredListener::load(&monitor.public_url, callbacks)?;
        let list = async || {
            let listed = monitor.thingspace.list_listeners(&self.account).await;
            listed.map_err(|error| error.to_string())
        };
        let mut listed = list().await?;
        let mut has_registered = false;
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            if service.should_register(callbacks.register, status) {
                let displaced = found.filter(|_| status == RegistrationState::OtherUrl);
                let new = desired.registration(&self.account, service.name);
                let result = monitor.register(&self.account, &new, displaced).await;
                service.record_attempt(&self.account, status, &result);
                has_registered |= result.is_ok();
            }
        }
        if has_registered {
            // A success response does not prove that the registration is in effect.
            listed = list().await?;
        }
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            service.update_status(&self.account, status, found);
        }
        Ok(())
    }

    fn mark_checked(&mut self) {
        self.is_failing = false;
        self.error = None;
    }

    fn mark_unknown(&mut self, error: &str) {
        self.error = Some(error.to_owned());
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
        use RegistrationState::{Missing, OtherUrl, WrongCredentials};
        match policy {
            RegisterPolicy::Never => false,
            RegisterPolicy::IfUnclaimed => status == Missing,
            RegisterPolicy::Replace if status == WrongCredentials => !self.has_renewed_credentials,
            RegisterPolicy::Replace => matches!(status, Missing | OtherUrl),
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
        self.error = result.as_ref().err().cloned();
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
        if status == RegistrationState::Registered {
            self.error = None;
        }
        self.has_renewed_credentials &= status == RegistrationState::WrongCredentials;
        let url_origin = found.map(|found| url_origin(found.url.expose_secret()));
        let current = Some((status, url_origin));
        if self.last_logged == current {
            return;
        }
        self.last_logged.clone_from(&current);
        let (account, service) = (account.as_str(), self.name);
        match status {
            RegistrationState::Registered => {
                tracing::info!(account, service, "this callback listener is registered");
            }
            RegistrationState::WrongCredentials => tracing::warn!(
                account,
                service,
                "this callback listener is registered, but not with callbacks.username and \
                 callbacks.password"
            ),
            RegistrationState::OtherUrl => {
                let url_origin = current.and_then(|(_, url_origin)| url_origin);
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
