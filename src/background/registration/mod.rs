//! The listener guard: ThingSpace has one address for each service of an account, whoever registers
//! another one takes the callbacks away, and nobody is told. So it is looked at.
//!
//! Whatever cannot be learnt changes nothing. A listener is registered over another one and never
//! deregistered first: callbacks in between would be lost.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::desired_listener::{RESULT_SERVICES, ServiceStatus, url_origin};
use crate::{
    domain::{clock::Clock, newtypes::AccountName},
    journal::Journal,
    telemetry::Instruments,
    thingspace::{ListenerRegistration, LookupError, ThingSpace},
};

mod desired_listener;

pub use self::desired_listener::DesiredListener;

/// How often it is looked at what is registered.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// Addresses that were displaced, and are kept of each service.
const MAX_DISPLACED: usize = 16;

/// What is done about a service whose callbacks go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterPolicy {
    /// It is reported.
    Never,
    /// This listener is registered where none is.
    IfUnclaimed,
    /// This listener is registered, whoever else is.
    Replace,
}

/// Where the listener's address comes from. Asked at each look, so that a rotated secret is seen.
pub trait DesiredListenerSource: Send + Sync {
    /// Reads it now. Must not wait for long.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, in one line without secrets.
    fn load(&self) -> Result<DesiredListener, String>;
}

/// What looks, for all accounts.
pub struct RegistrationMonitor {
    registrar: Registrar,
    accounts: Vec<MonitoredAccount>,
}

/// What a guard is made of.
pub struct Registrar {
    /// Keeps what was displaced.
    pub journal: Arc<dyn Journal>,
    /// Is asked.
    pub thingspace: Arc<ThingSpace>,
    /// Tells when something was displaced.
    pub clock: Arc<dyn Clock>,
    /// Where callbacks should go.
    pub desired: Arc<dyn DesiredListenerSource>,
    /// What is done.
    pub policy: RegisterPolicy,
    /// What is measured.
    pub instruments: Instruments,
}

/// An account, and what was last seen of it.
struct MonitoredAccount {
    account: AccountName,
    is_failing: bool,
    services: [MonitoredService; RESULT_SERVICES.len()],
}

/// A service, and what was last seen of it.
struct MonitoredService {
    name: &'static str,
    status: ServiceStatus,
    /// What was said of it last: nothing is said twice in a row.
    last_logged: Option<(ServiceStatus, String)>,
    /// A registration failed, and that was said.
    has_logged_failure: bool,
    /// The right user name and password were registered. Where the list does not show them as they
    /// are, that is not done again and again.
    has_renewed_credentials: bool,
}

// === impl Guard ===

impl RegistrationMonitor {
    /// Looks after these accounts.
    pub fn new(registrar: Registrar, accounts: impl IntoIterator<Item = AccountName>) -> Self {
        let mut watched: Vec<MonitoredAccount> = Vec::new();
        for account in accounts {
            if watched.iter().all(|other| other.account != account) {
                watched.push(MonitoredAccount::new(account));
            }
        }
        Self {
            registrar,
            accounts: watched,
        }
    }

    /// Looks at once, then every five minutes, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.record_metrics();
        let looks = async {
            loop {
                self.check().await;
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looks => {}
        }
    }

    /// Looks at all accounts once.
    pub async fn check(&mut self) {
        for watched in &mut self.accounts {
            match watched.check(&self.registrar).await {
                Ok(()) => watched.is_failing = false,
                Err(stopped) => watched.mark_unknown(&stopped),
            }
        }
        self.record_metrics();
    }

    fn record_metrics(&self) {
        let services = || self.accounts.iter().flat_map(|watched| &watched.services);
        for status in ServiceStatus::ALL {
            let count = services()
                .filter(|service| service.status == status)
                .count();
            self.registrar.instruments.listeners(status.name(), count);
        }
    }
}

/// Why an account was not looked at to the end.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("{0}")]
    Desired(String),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

// === impl Watched ===

impl MonitoredAccount {
    fn new(account: AccountName) -> Self {
        Self {
            account,
            is_failing: false,
            services: RESULT_SERVICES.map(|service| MonitoredService {
                name: service,
                status: ServiceStatus::Unknown,
                last_logged: None,
                has_logged_failure: false,
                has_renewed_credentials: false,
            }),
        }
    }

    async fn check(&mut self, registrar: &Registrar) -> Result<(), CheckError> {
        let desired = registrar.desired.load().map_err(CheckError::Desired)?;
        let list = || registrar.thingspace.list_listeners(&self.account);
        let mut listed = list().await?;
        let mut registered = false;
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            if service.should_register(registrar.policy, status) {
                let displaced = found.filter(|_| status == ServiceStatus::Elsewhere);
                let new = desired.registration(&self.account, service.name);
                let done = registrar.register(&self.account, &new, displaced).await;
                service.record_attempt(&self.account, status, &done);
                registered |= done.is_ok();
            }
        }
        if registered {
            // What was answered is one thing, what is registered now another.
            listed = list().await?;
        }
        for service in &mut self.services {
            let (status, found) = desired.evaluate(&self.account, service.name, &listed);
            service.update_status(&self.account, status, found);
        }
        Ok(())
    }

    fn mark_unknown(&mut self, why: &CheckError) {
        for service in &mut self.services {
            service.status = ServiceStatus::Unknown;
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            let account = self.account.as_str();
            tracing::warn!(account, %why, "the registered callback listeners are not known");
        }
    }
}

// === impl Seen ===

impl MonitoredService {
    fn should_register(&self, register: RegisterPolicy, status: ServiceStatus) -> bool {
        match (register, status) {
            (_, ServiceStatus::Here | ServiceStatus::Unknown) | (RegisterPolicy::Never, _) => false,
            (RegisterPolicy::IfUnclaimed, status) => status == ServiceStatus::Missing,
            (RegisterPolicy::Replace, ServiceStatus::OtherCredentials) => {
                !self.has_renewed_credentials
            }
            (RegisterPolicy::Replace, ServiceStatus::Missing | ServiceStatus::Elsewhere) => true,
        }
    }

    /// What became of a registration; said once as long as it fails.
    fn record_attempt(
        &mut self,
        account: &AccountName,
        before: ServiceStatus,
        done: &Result<(), String>,
    ) {
        let (account, service) = (account.as_str(), self.name);
        match done {
            Ok(()) => {
                self.has_logged_failure = false;
                self.has_renewed_credentials |= before == ServiceStatus::OtherCredentials;
                tracing::info!(account, service, "this callback listener was registered");
            }
            Err(why) if !self.has_logged_failure => {
                self.has_logged_failure = true;
                tracing::warn!(
                    account,
                    service,
                    why,
                    "this callback listener was not registered"
                );
            }
            Err(_) => {}
        }
    }

    /// Keeps where the callbacks go, and says so when that has changed.
    fn update_status(
        &mut self,
        account: &AccountName,
        status: ServiceStatus,
        found: Option<&ListenerRegistration>,
    ) {
        self.status = status;
        self.has_renewed_credentials &= status == ServiceStatus::OtherCredentials;
        let place = found
            .map(|found| url_origin(&found.url))
            .unwrap_or_default();
        let tell = Some((status, place.clone()));
        if self.last_logged == tell {
            return;
        }
        self.last_logged = tell;
        let (account, service) = (account.as_str(), self.name);
        match status {
            ServiceStatus::Here => {
                tracing::info!(account, service, "callbacks are registered to come here");
            }
            ServiceStatus::OtherCredentials => {
                tracing::warn!(
                    account,
                    service,
                    "callbacks are registered to come here, but not with callbacks.username and \
                     callbacks.password"
                );
            }
            ServiceStatus::Elsewhere => {
                tracing::warn!(
                    account,
                    service,
                    place,
                    "callbacks are registered to go elsewhere"
                );
            }
            ServiceStatus::Missing | ServiceStatus::Unknown => {
                tracing::warn!(account, service, "no callback listener is registered");
            }
        }
    }
}

// === impl Means ===

impl Registrar {
    /// Registers this listener. Whose place it takes is on disk before.
    async fn register(
        &self,
        account: &AccountName,
        new: &ListenerRegistration,
        displaced: Option<&ListenerRegistration>,
    ) -> Result<(), String> {
        if let Some(displaced) = displaced {
            let kept = self
                .store_displaced(account, &new.service, &displaced.url)
                .await;
            kept.map_err(|why| format!("the listener before could not be kept: {why}"))?;
        }
        let done = self.thingspace.register_listener(account, new).await;
        self.instruments.registration(match (&done, displaced) {
            (Err(_), _) => "failed",
            (Ok(()), Some(_)) => "replaced",
            (Ok(()), None) => "registered",
        });
        if let (Ok(()), Some(displaced)) = (&done, displaced) {
            let (account, service) = (account.as_str(), new.service.as_str());
            let place = url_origin(&displaced.url);
            tracing::warn!(
                account,
                service,
                place,
                "another callback listener was displaced"
            );
        }
        done.map_err(|error| error.to_string())
    }

    /// Keeps a whole address, which may have secrets in it, where only the gateway's user reads.
    async fn store_displaced(
        &self,
        account: &AccountName,
        service: &str,
        url: &SecretString,
    ) -> Result<(), String> {
        let name = displaced_kv_key(account, service);
        let before = self.journal.get_kv(name.clone()).await;
        let before = before.map_err(|error| error.to_string())?;
        let mut kept: Vec<Value> = serde_json::from_slice(&before).unwrap_or_default();
        let url = url.expose_secret();
        // One that comes back again and again would push out the others.
        kept.retain(|other| other.get("url").and_then(Value::as_str) != Some(url));
        kept.push(json!({ "displace_time_us": self.clock.now().as_micros(), "url": url }));
        let kept = kept.split_off(kept.len().saturating_sub(MAX_DISPLACED));
        let value = Value::Array(kept).to_string().into_bytes();
        let put = self.journal.put_kv(name, value).await;
        put.map_err(|error| error.to_string())
    }
}

/// Where the journal keeps what was displaced.
fn displaced_kv_key(account: &AccountName, service: &str) -> String {
    format!("displaced.{account}.{service}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_what_is_registered_and_credentials_are_renewed_once() {
        let account = AccountName::parse("0000123456-00001").unwrap();
        let mut services = MonitoredAccount::new(account.clone()).services;
        let service = &mut services[0];
        for (register, expected) in [
            (RegisterPolicy::Never, [false; 5]),
            (
                RegisterPolicy::IfUnclaimed,
                [false, false, false, false, true],
            ),
            (RegisterPolicy::Replace, [false, false, true, true, true]),
        ] {
            assert_eq!(
                ServiceStatus::ALL.map(|it| service.should_register(register, it)),
                expected
            );
        }
        // A list that does not show passwords as they are makes no loop.
        service.record_attempt(&account, ServiceStatus::OtherCredentials, &Ok(()));
        service.update_status(&account, ServiceStatus::OtherCredentials, None);
        assert!(!service.should_register(RegisterPolicy::Replace, ServiceStatus::OtherCredentials));
        service.update_status(&account, ServiceStatus::Here, None);
        assert!(service.should_register(RegisterPolicy::Replace, ServiceStatus::OtherCredentials));
    }
}
