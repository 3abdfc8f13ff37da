//! The listener guard: ThingSpace has one address for each service of an account, whoever registers
//! another one takes the callbacks away, and nobody is told. So it is looked at.
//!
//! Whatever cannot be learnt changes nothing. A listener is registered over another one and never
//! deregistered first: callbacks in between would be lost.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::address::{SERVICES, Standing, place};
use crate::{
    domain::{clock::Clock, newtypes::AccountName},
    journal::Journal,
    telemetry::Instruments,
    thingspace::{LookUpError, Registration, ThingSpace},
};

mod address;

pub use self::address::Own;

/// How often it is looked at what is registered.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// Addresses that were displaced, and are kept of each service.
const KEPT: usize = 16;

/// What is done about a service whose callbacks go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// It is reported.
    Never,
    /// This listener is registered where none is.
    IfUnclaimed,
    /// This listener is registered, whoever else is.
    Replace,
}

/// Where the listener's address comes from. Asked at each look, so that a rotated secret is seen.
pub trait OwnSource: Send + Sync {
    /// Reads it now. Must not wait for long.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, in one line without secrets.
    fn read(&self) -> Result<Own, String>;
}

/// What looks, for all accounts.
pub struct Guard {
    means: Means,
    accounts: Vec<Watched>,
}

/// What a guard is made of.
pub struct Means {
    /// Keeps what was displaced.
    pub journal: Arc<dyn Journal>,
    /// Is asked.
    pub thingspace: Arc<ThingSpace>,
    /// Tells when something was displaced.
    pub clock: Arc<dyn Clock>,
    /// Where callbacks should go.
    pub own: Arc<dyn OwnSource>,
    /// What is done.
    pub register: Register,
    /// What is measured.
    pub instruments: Instruments,
}

/// An account, and what was last seen of it.
struct Watched {
    account: AccountName,
    failing: bool,
    services: [Seen; SERVICES.len()],
}

/// A service, and what was last seen of it.
struct Seen {
    service: &'static str,
    standing: Standing,
    /// What was said of it last: nothing is said twice in a row.
    told: Option<(Standing, String)>,
    /// A registration failed, and that was said.
    refused: bool,
    /// The right user name and password were registered. Where the list does not show them as they
    /// are, that is not done again and again.
    login_renewed: bool,
}

// === impl Guard ===

impl Guard {
    /// Looks after these accounts.
    pub fn new(means: Means, accounts: impl IntoIterator<Item = AccountName>) -> Self {
        let mut watched: Vec<Watched> = Vec::new();
        for account in accounts {
            if watched.iter().all(|other| other.account != account) {
                watched.push(Watched::new(account));
            }
        }
        Self {
            means,
            accounts: watched,
        }
    }

    /// Looks at once, then every five minutes, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.measure();
        let looks = async {
            loop {
                self.look().await;
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looks => {}
        }
    }

    /// Looks at all accounts once.
    pub async fn look(&mut self) {
        for watched in &mut self.accounts {
            match watched.look(&self.means).await {
                Ok(()) => watched.failing = false,
                Err(stopped) => watched.fail(&stopped),
            }
        }
        self.measure();
    }

    fn measure(&self) {
        let services = || self.accounts.iter().flat_map(|watched| &watched.services);
        for standing in Standing::ALL {
            let count = services().filter(|seen| seen.standing == standing).count();
            self.means.instruments.listeners(standing.name(), count);
        }
    }
}

/// Why an account was not looked at to the end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("{0}")]
    Own(String),
    #[error(transparent)]
    Asking(#[from] LookUpError),
}

// === impl Watched ===

impl Watched {
    fn new(account: AccountName) -> Self {
        Self {
            account,
            failing: false,
            services: SERVICES.map(|service| Seen {
                service,
                standing: Standing::Unknown,
                told: None,
                refused: false,
                login_renewed: false,
            }),
        }
    }

    async fn look(&mut self, means: &Means) -> Result<(), Stopped> {
        let own = means.own.read().map_err(Stopped::Own)?;
        let list = || means.thingspace.listeners(&self.account);
        let mut listed = list().await?;
        let mut registered = false;
        for seen in &mut self.services {
            let (standing, found) = own.judge(&self.account, seen.service, &listed);
            if seen.wants(means.register, standing) {
                let displaced = found.filter(|_| standing == Standing::Elsewhere);
                let new = own.registration(&self.account, seen.service);
                let done = means.register(&self.account, &new, displaced).await;
                seen.note(&self.account, standing, &done);
                registered |= done.is_ok();
            }
        }
        if registered {
            // What was answered is one thing, what is registered now another.
            listed = list().await?;
        }
        for seen in &mut self.services {
            let (standing, found) = own.judge(&self.account, seen.service, &listed);
            seen.settle(&self.account, standing, found);
        }
        Ok(())
    }

    fn fail(&mut self, why: &Stopped) {
        for seen in &mut self.services {
            seen.standing = Standing::Unknown;
        }
        if !std::mem::replace(&mut self.failing, true) {
            let account = self.account.as_str();
            tracing::warn!(account, %why, "the registered callback listeners are not known");
        }
    }
}

// === impl Seen ===

impl Seen {
    fn wants(&self, register: Register, standing: Standing) -> bool {
        match (register, standing) {
            (_, Standing::Here | Standing::Unknown) | (Register::Never, _) => false,
            (Register::IfUnclaimed, standing) => standing == Standing::Missing,
            (Register::Replace, Standing::OtherLogin) => !self.login_renewed,
            (Register::Replace, Standing::Missing | Standing::Elsewhere) => true,
        }
    }

    /// What became of a registration; said once as long as it fails.
    fn note(&mut self, account: &AccountName, before: Standing, done: &Result<(), String>) {
        let (account, service) = (account.as_str(), self.service);
        match done {
            Ok(()) => {
                self.refused = false;
                self.login_renewed |= before == Standing::OtherLogin;
                tracing::info!(account, service, "this callback listener was registered");
            }
            Err(why) if !self.refused => {
                self.refused = true;
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
    fn settle(&mut self, account: &AccountName, standing: Standing, found: Option<&Registration>) {
        self.standing = standing;
        self.login_renewed &= standing == Standing::OtherLogin;
        let place = found.map(|found| place(&found.url)).unwrap_or_default();
        let tell = Some((standing, place.clone()));
        if self.told == tell {
            return;
        }
        self.told = tell;
        let (account, service) = (account.as_str(), self.service);
        match standing {
            Standing::Here => {
                tracing::info!(account, service, "callbacks are registered to come here");
            }
            Standing::OtherLogin => {
                tracing::warn!(
                    account,
                    service,
                    "callbacks are registered to come here, but not with callbacks.username and \
                     callbacks.password"
                );
            }
            Standing::Elsewhere => {
                tracing::warn!(
                    account,
                    service,
                    place,
                    "callbacks are registered to go elsewhere"
                );
            }
            Standing::Missing | Standing::Unknown => {
                tracing::warn!(account, service, "no callback listener is registered");
            }
        }
    }
}

// === impl Means ===

impl Means {
    /// Registers this listener. Whose place it takes is on disk before.
    async fn register(
        &self,
        account: &AccountName,
        new: &Registration,
        displaced: Option<&Registration>,
    ) -> Result<(), String> {
        if let Some(displaced) = displaced {
            let kept = self.keep(account, &new.service, &displaced.url).await;
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
            let place = place(&displaced.url);
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
    async fn keep(
        &self,
        account: &AccountName,
        service: &str,
        url: &SecretString,
    ) -> Result<(), String> {
        let name = note_of(account, service);
        let before = self.journal.get_kv(name.clone()).await;
        let before = before.map_err(|error| error.to_string())?;
        let mut kept: Vec<Value> = serde_json::from_slice(&before).unwrap_or_default();
        let url = url.expose_secret();
        // One that comes back again and again would push out the others.
        kept.retain(|other| other.get("url").and_then(Value::as_str) != Some(url));
        kept.push(json!({ "displace_time_us": self.clock.now().as_micros(), "url": url }));
        let kept = kept.split_off(kept.len().saturating_sub(KEPT));
        let value = Value::Array(kept).to_string().into_bytes();
        let put = self.journal.put_kv(name, value).await;
        put.map_err(|error| error.to_string())
    }
}

/// Where the journal keeps what was displaced.
fn note_of(account: &AccountName, service: &str) -> String {
    format!("displaced.{account}.{service}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_over_follows_the_setting_and_its_own_credentials_once() {
        let account = AccountName::parse("0000123456-00001").unwrap();
        let mut seen = Watched::new(account.clone()).services;
        let seen = &mut seen[0];
        for (register, expected) in [
            (Register::Never, [false; 5]),
            (Register::IfUnclaimed, [false, false, false, false, true]),
            (Register::Replace, [false, false, true, true, true]),
        ] {
            assert_eq!(Standing::ALL.map(|it| seen.wants(register, it)), expected);
        }
        // A list that does not show passwords as they are makes no loop.
        seen.note(&account, Standing::OtherLogin, &Ok(()));
        seen.settle(&account, Standing::OtherLogin, None);
        assert!(!seen.wants(Register::Replace, Standing::OtherLogin));
        seen.settle(&account, Standing::Here, None);
        assert!(seen.wants(Register::Replace, Standing::OtherLogin));
    }
}
