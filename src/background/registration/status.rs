//! The result of the last checks of the registrations. The leader stores it in the journal, and every replica reads it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    domain::{clock::Timestamp, evidence::ResultService, newtypes::AccountName},
    journal::{Journal, JournalError},
    telemetry::RegistrationState,
};

/// The key of the stored statuses.
const KEY: &str = "registrations";
/// Maximum length of a stored error in characters.
const MAX_ERROR: usize = 300;

/// The registration of one callback service of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// The account.
    pub account: AccountName,
    /// The callback service.
    pub service: ResultService,
    /// The name of a [`RegistrationState`].
    pub state: String,
    /// The time of the last check. `None` before the first one.
    pub check_time: Option<Timestamp>,
    /// The error of the last check or registration. Empty if it succeeded.
    pub last_error: String,
}

/// The stored form of a status.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredStatus {
    account: String,
    service: String,
    state: String,
    check_time_us: i64,
    error: String,
}

/// Reads the statuses of the accounts in `thingspace.accounts`. Cheap to clone.
#[derive(Clone)]
pub struct RegistrationStatuses {
    journal: Arc<dyn Journal>,
    /// Empty if the gateway checks no registration.
    accounts: Arc<[AccountName]>,
}

impl StoredStatus {
    pub(super) fn new(
        account: &AccountName,
        service: &str,
        state: RegistrationState,
        error: Option<&str>,
        check_time: Timestamp,
    ) -> Self {
        Self {
            account: account.to_string(),
            service: service.to_owned(),
            state: state.name().to_owned(),
            check_time_us: check_time.as_micros(),
            error: error.unwrap_or_default().chars().take(MAX_ERROR).collect(),
        }
    }
}

/// Stores the statuses of all accounts, in place of the earlier ones.
pub(super) async fn store(
    journal: &dyn Journal,
    statuses: &[StoredStatus],
) -> Result<(), JournalError> {
    let text = serde_json::to_vec(statuses).unwrap_or_default();
    journal.put_kv(KEY.to_owned(), text).await
}

impl RegistrationStatuses {
    /// Creates a reader.
    pub fn new(config: &Config, journal: Arc<dyn Journal>) -> Self {
        let is_checked = config.callbacks.public_url.is_some();
        let mut accounts = config.thingspace.accounts.clone();
        accounts.sort();
        accounts.dedup();
        Self { journal, accounts: accounts.into_iter().filter(|_| is_checked).collect() }
    }

    /// Returns the status of each service of each account.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    pub async fn read(&self) -> Result<Vec<RegistrationStatus>, JournalError> {
        if self.accounts.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.journal.get_kv(KEY.to_owned()).await?;
        // Another version may have stored something else.
        let stored: Vec<StoredStatus> = serde_json::from_slice(&stored).unwrap_or_default();
        let services = |account| ResultService::ALL.into_iter().map(move |it| (account, it));
        let all = self.accounts.iter().flat_map(services);
        Ok(all.map(|(account, service)| status(account, service, &stored)).collect())
    }
}

fn status(
    account: &AccountName,
    service: ResultService,
    stored: &[StoredStatus],
) -> RegistrationStatus {
    let stored = stored.iter().find(|it| {
        (it.account.as_str(), it.service.as_str()) == (account.as_str(), service.as_str())
    });
    let unknown = || RegistrationState::Unknown.name().to_owned();
    RegistrationStatus {
        account: account.clone(),
        service,
        state: stored.map_or_else(unknown, |stored| stored.state.clone()),
        check_time: stored.map(|stored| Timestamp::from_micros(stored.check_time_us)),
        last_error: stored.map(|stored| stored.error.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
