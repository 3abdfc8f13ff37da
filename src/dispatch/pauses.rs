//! Pauses of changes: an operator stops the changes of an account, or of all accounts.
//!
//! The pauses are in the journal, so that they survive a restart and apply to all replicas.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::MutexGuard,
    time::{sleep, timeout},
};

use crate::{
    domain::{
        clock::{Clock, Timestamp},
        newtypes::AccountName,
    },
    journal::{
        Epoch, Journal, JournalError,
        transfer::{FileHeader, FileKind},
    },
};

/// Maximum number of pauses.
const MAX_PAUSES: usize = 1_000;
/// Interval at which a replica reads the pauses that others have stored.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which all replicas have read a pause. Replicas that cannot read the journal send nothing.
const PROPAGATION_TIME: Duration = Duration::from_secs(5);
/// Lease of the replica that changes the pauses, and its duration.
const LEASE: &str = "pauses";
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// Name of the stored pauses.
pub(crate) const KV_KEY: &str = "pauses";
/// The names of the commands that pause the changes of all accounts.
const RESTORE_COMMAND: &str = "journal restore";
const ACCEPT_LOSS_COMMAND: &str = "journal accept-loss";

/// The pauses of one journal.
pub struct Pauses {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    current: RwLock<LoadedPauses>,
    /// Held while this replica reads or changes the stored pauses.
    writing: tokio::sync::Mutex<()>,
}

/// Pauses that were read from the journal.
struct LoadedPauses {
    table: PauseTable,
    /// The epoch of the database that they were read from. A database of another epoch may have other pauses: it may have
    /// been restored.
    epoch: Epoch,
}

/// The pauses by account; `None` stands for all accounts.
type PauseTable = BTreeMap<Option<AccountName>, Pause>;

/// A pause of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The account. `None` if the changes of all accounts are paused.
    pub account: Option<AccountName>,
    /// The reason, for other operators.
    pub reason: String,
    /// The name of the caller who paused the changes.
    pub paused_by: String,
    /// The time at which the changes were paused, in microseconds since the Unix epoch.
    pub pause_time_us: i64,
    /// True if the journal may lack changes that were sent: it was restored from a backup, or a loss was accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_changes: bool,
}

/// The reason why a pause was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// There are too many pauses.
    #[error("there are {MAX_PAUSES} pauses already; pause all accounts, or resume some")]
    TooMany,
    /// Another replica changes the pauses at this moment.
    #[error("another replica is changing the pauses; try again")]
    Contended,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Pauses {
    /// Loads the pauses of a journal.
    ///
    /// # Errors
    ///
    /// Errors of the journal.
    pub async fn load(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, JournalError> {
        let current = RwLock::new(LoadedPauses::load(&*journal).await?);
        Ok(Arc::new(Self { journal, clock, current, writing: tokio::sync::Mutex::default() }))
    }

    /// True if the changes of an account must not be sent. Reads the pauses first if the journal has a new epoch. Until they
    /// have been read, all accounts are paused.
    pub async fn is_paused(&self, account: &AccountName) -> bool {
        // One call reads them. The others wait for it for a moment.
        if !self.is_current()
            && let Ok(writing) = timeout(REFRESH_INTERVAL, self.writing.lock()).await
            && !self.is_current()
        {
            self.refresh(&writing).await;
        }
        let current = self.current.read();
        current.epoch != self.journal.epoch() || current.find(account).next().is_some()
    }

    /// True if the pauses were read in the present epoch.
    fn is_current(&self) -> bool {
        self.current.read().epoch == self.journal.epoch()
    }

    /// True if every replica has read the pause of an account by now.
    pub fn is_paused_on_all_replicas(&self, account: &AccountName) -> bool {
        let is_old = |pause: &Pause| self.clock.now().since(pause.pause_time()) >= PROPAGATION_TIME;
        let current = self.current.read();
        self.journal.coordination().is_none() || current.find(account).any(is_old)
    }

    /// True if changes of an account may have been sent that this journal does not have, or has as NOT_SENT, because it was
    /// restored from a backup or a loss was accepted. Also true if the pauses of the present epoch have not been read.
    pub fn may_lack_changes(&self, account: &AccountName) -> bool {
        let current = self.current.read();
        current.epoch != self.journal.epoch()
            || current.find(account).any(|pause| pause.lacks_changes)
    }

    /// Returns all pauses; that of all accounts is the first.
    pub fn list(&self) -> Vec<Pause> {
        self.current.read().table.values().cloned().collect()
    }

    /// Pauses the changes of an account, or of all accounts. Returns the earlier pause if there is one.
    ///
    /// # Errors
    ///
    /// [`PauseError`]: nothing was stored, or it may be stored.
    pub async fn pause(
        &self,
        account: Option<AccountName>,
        reason: String,
        paused_by: String,
    ) -> Result<Pause, PauseError> {
        let pause_time_us = self.clock.now().as_micros();
        let pause = Pause {
            account: account.clone(),
            reason,
            paused_by,
            pause_time_us,
            lacks_changes: false,
        };
        self.update(|pauses| {
            if pauses.len() == MAX_PAUSES && !pauses.contains_key(&account) {
                return Err(PauseError::TooMany);
            }
            // A pause that follows that of a restore, for one account.
            let lacks_changes = pauses.get(&None).is_some_and(|all| all.lacks_changes);
            Ok(pauses.entry(account).or_insert(Pause { lacks_changes, ..pause }).clone())
        })
        .await
    }

    /// Ends the pause of an account, or that of all accounts. Returns false if there was none.
    ///
    /// # Errors
    ///
    /// [`PauseError`]: nothing was stored, or it may be stored.
    pub async fn resume(&self, account: Option<AccountName>) -> Result<bool, PauseError> {
        self.update(|pauses| Ok(pauses.remove(&account).is_some())).await
    }

    /// Reads the pauses that other replicas store. Returns at once if no other replica uses the journal.
    pub async fn follow(self: Arc<Self>) {
        if self.journal.coordination().is_none() {
            return;
        }
        loop {
            sleep(REFRESH_INTERVAL).await;
            let writing = self.writing.lock().await;
            self.refresh(&writing).await;
        }
    }

    /// Reads the pauses. The caller holds the lock.
    async fn refresh(&self, _writing: &MutexGuard<'_, ()>) {
        match LoadedPauses::load(&*self.journal).await {
            Ok(pauses) => *self.current.write() = pauses,
            Err(error) => tracing::debug!(%error, "cannot read the pauses of changes"),
        }
    }

    /// Changes the stored pauses, and then those in effect.
    async fn update<T>(
        &self,
        change: impl FnOnce(&mut PauseTable) -> Result<T, PauseError>,
    ) -> Result<T, PauseError> {
        let _writing = self.writing.lock().await;
        let coordination = self.journal.coordination();
        if let Some(shared) = &coordination
            && !shared.acquire_lease(LEASE, LEASE_DURATION).await?
        {
            return Err(PauseError::Contended);
        }
        let updated = async {
            let mut pauses = LoadedPauses::load(&*self.journal).await?;
            let result = change(&mut pauses.table)?;
            let stored: Vec<&Pause> = pauses.table.values().collect();
            let stored = if stored.is_empty() { Vec::new() } else { encode(&stored)? };
            self.journal.put_kv(KV_KEY.to_owned(), stored).await?;
            *self.current.write() = pauses;
            Ok(result)
        };
        let updated = updated.await;
        if let Some(shared) = coordination {
            // Otherwise the lease expires.
            let _released = shared.release_lease(LEASE).await;
        }
        updated
    }
}

impl LoadedPauses {
    async fn load(journal: &dyn Journal) -> Result<Self, JournalError> {
        let (stored, epoch) = journal.get_kv_and_epoch(KV_KEY.to_owned()).await?;
        Ok(Self { table: decode(&stored)?, epoch })
    }

    /// Returns the pauses that concern an account.
    fn find(&self, account: &AccountName) -> impl Iterator<Item = &Pause> {
        // Copies the name only if there are pauses.
        let of_account =
            if self.table.is_empty() { None } else { self.table.get(&Some(account.clone())) };
        [self.table.get(&None), of_account].into_iter().flatten()
    }
}

impl Pause {
    /// The time at which the changes were paused.
    pub fn pause_time(&self) -> Timestamp {
        Timestamp::from_micros(self.pause_time_us)
    }
}

/// Adds a pause of all accounts to the pauses of a journal that is restored from a file, and returns them encoded.
///
/// # Errors
///
/// One line with the reason: the stored pauses cannot be decoded.
pub fn pause_restored(
    header: &FileHeader,
    stored: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>, String> {
    let source = match header.kind {
        FileKind::Backup { snapshot_time_us } => {
            let time = prost_types::Timestamp::from(Timestamp::from_micros(snapshot_time_us));
            format!("a backup of {time}")
        }
        FileKind::Export => "an export".to_owned(),
    };
    let position = header.last_position;
    let reason = format!(
        "restored from {source}, which ends at position {position}; see docs/journal.md, section \"After a \
         restore\", before you resume"
    );
    pause_all(stored, reason, RESTORE_COMMAND, now)
}

/// Adds a pause of all accounts to the pauses of a journal that has lost data after a position, and returns them encoded.
///
/// # Errors
///
/// One line with the reason: the stored pauses cannot be decoded.
pub fn pause_after_loss(
    last_position: u64,
    stored: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>, String> {
    let reason = format!(
        "data after position {last_position} was lost; see docs/journal.md, section \"Accepting a loss\", before \
         you resume"
    );
    pause_all(stored, reason, ACCEPT_LOSS_COMMAND, now)
}

/// Pauses the changes of all accounts in a journal that may lack changes.
fn pause_all(
    stored: &[u8],
    mut reason: String,
    command: &str,
    now: Timestamp,
) -> Result<Vec<u8>, String> {
    let mut pauses = decode(stored).map_err(|error| error.to_string())?;
    pauses.values_mut().for_each(|pause| pause.lacks_changes = true);
    if let Some(earlier) = pauses.get(&None).filter(|earlier| !earlier.reason.is_empty()) {
        reason.push_str(&format!("; paused before: {}", earlier.reason));
    }
    let pause = Pause {
        account: None,
        reason,
        paused_by: command.to_owned(),
        pause_time_us: now.as_micros(),
        lacks_changes: true,
    };
    pauses.insert(None, pause);
    encode(&pauses.values().collect::<Vec<_>>()).map_err(|error| error.to_string())
}

fn decode(stored: &[u8]) -> Result<PauseTable, JournalError> {
    if stored.is_empty() {
        return Ok(PauseTable::new());
    }
    let pauses: Vec<Pause> = serde_json::from_slice(stored)
        .map_err(|error| JournalError::Unavailable(format!("cannot decode the pauses: {error}")))?;
    Ok(pauses.into_iter().map(|pause| (pause.account.clone(), pause)).collect())
}

fn encode(pauses: &[&Pause]) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(pauses)
        .map_err(|error| JournalError::Unavailable(format!("cannot encode the pauses: {error}")))
}
