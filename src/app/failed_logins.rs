//! The failed log-ins of the ThingSpace client, in the journal.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    callbacks::credential_mac,
    domain::clock::{Clock, Timestamp},
    journal::Journal,
    thingspace::{FailedLoginStore, FailedLogins, ThingSpaceCredentials},
};

/// The name of the failed log-ins that are assumed in addition to the stored ones, since a restore or a loss. ThingSpace may
/// have refused log-ins that the journal does not have.
pub(super) const ASSUMED_KEY: &str = "failed_logins_assumed";
/// One refused log-in: the gateway makes one more attempt before it stops. Without a restore it makes two, and
/// ThingSpace locks the user after five.
pub(super) const ASSUMED_AFTER_LOSS: [u8; 2] = [1, 0];

/// Stores failed log-ins under a key that only this journal can compute from the credentials.
pub(super) struct JournalFailedLoginStore {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
}

impl JournalFailedLoginStore {
    async fn load_assumed(&self) -> Result<Vec<u8>, String> {
        let assumed = self.journal.get_kv(ASSUMED_KEY.to_owned()).await;
        assumed.map_err(|error| error.to_string())
    }

    fn kv_key(&self, credentials: &ThingSpaceCredentials) -> String {
        let parts = [
            &credentials.app_key,
            &credentials.app_secret,
            &credentials.uws_username,
            &credentials.uws_password,
        ];
        let mac = credential_mac(&*self.journal, parts);
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("failed_logins.{hex}")
    }
}

#[async_trait]
impl FailedLoginStore for JournalFailedLoginStore {
    async fn load(&self, credentials: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        let value = self.journal.get_kv(self.kv_key(credentials)).await;
        let value = value.map_err(|error| error.to_string())?;
        let mut failed = decode(&value, self.clock.now());
        let assumed = decode(&self.load_assumed().await?, self.clock.now());
        failed.refused = failed.refused.saturating_add(assumed.refused);
        Ok(failed)
    }

    async fn store(
        &self,
        credentials: &ThingSpaceCredentials,
        failed: FailedLogins,
    ) -> Result<(), String> {
        let value = encode(failed, self.clock.now());
        let stored = self.journal.put_kv(self.kv_key(credentials), value).await;
        stored.map_err(|error| error.to_string())?;
        // The stored count includes them from now on.
        if !self.load_assumed().await?.is_empty() {
            let removed = self.journal.put_kv(ASSUMED_KEY.to_owned(), Vec::new()).await;
            removed.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Encodes the two counts and the time of the last refusal, in microseconds since the Unix epoch.
fn encode(failed: FailedLogins, now: Timestamp) -> Vec<u8> {
    if failed == FailedLogins::default() {
        return Vec::new();
    }
    let mut value = vec![failed.refused, failed.unfinished];
    if let Some(since) = failed.since_refused {
        value.extend(now.minus(since).as_micros().to_be_bytes());
    }
    value
}

fn decode(value: &[u8], now: Timestamp) -> FailedLogins {
    let (counts, time) = value.split_at_checked(2).unwrap_or((value, &[]));
    let refused_at = <[u8; 8]>::try_from(time).ok().map(i64::from_be_bytes);
    FailedLogins {
        refused: counts.first().copied().unwrap_or(0),
        unfinished: counts.get(1).copied().unwrap_or(0),
        // If the clock was set back, this is zero: the lock-out then lasts longest.
        since_refused: refused_at.map(|at| now.since(Timestamp::from_micros(at))),
    }
}

#[cfg(test)]
mod tests;
