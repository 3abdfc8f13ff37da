//! The state that the ThingSpace clients of all replicas share, in the journal.

use std::{fmt::Display, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    journal::{Coordination, Journal, Rate},
    thingspace::{SharedRateLimits, SharedSessionStore, SharedState, StoredSession},
};

/// The lease of the replica that logs in.
const LOGIN_LEASE: &str = "thingspace_login";
/// The name of the encrypted token and session.
const SESSION: &str = "thingspace_session";

/// Returns the shared state. `None` if no other replica can use the journal.
pub(super) fn shared_state(journal: &Arc<dyn Journal>) -> Option<SharedState> {
    let coordination = journal.coordination()?;
    let store = JournalSessionStore {
        journal: Arc::clone(journal),
        coordination: Arc::clone(&coordination),
    };
    Some(SharedState {
        sessions: Arc::new(store),
        rate_limits: Arc::new(JournalRateLimits(coordination)),
    })
}

struct JournalSessionStore {
    journal: Arc<dyn Journal>,
    coordination: Arc<dyn Coordination>,
}

#[async_trait]
impl SharedSessionStore for JournalSessionStore {
    async fn acquire_lease(&self, duration: Duration) -> Result<bool, String> {
        self.coordination.acquire_lease(LOGIN_LEASE, duration).await.map_err(text)
    }

    async fn release_lease(&self) -> Result<(), String> {
        self.coordination.release_lease(LOGIN_LEASE).await.map_err(text)
    }

    async fn load(&self) -> Result<StoredSession, String> {
        let value = self.journal.get_kv(SESSION.to_owned()).await.map_err(text)?;
        let time = self.coordination.time().await.map_err(text)?;
        Ok(StoredSession { value, time })
    }

    async fn store(&self, value: Vec<u8>) -> Result<(), String> {
        self.journal.put_kv(SESSION.to_owned(), value).await.map_err(text)
    }
}

struct JournalRateLimits(Arc<dyn Coordination>);

#[async_trait]
impl SharedRateLimits for JournalRateLimits {
    async fn take_permit(
        &self,
        limit: &str,
        per_minute: u32,
    ) -> Result<Result<(), Duration>, String> {
        self.0.take_permit(limit, Rate { per_minute }).await.map_err(text)
    }

    async fn give_back_permit(&self, limit: &str, per_minute: u32) -> Result<(), String> {
        self.0.give_back_permit(limit, Rate { per_minute }).await.map_err(text)
    }

    async fn pause_permits(&self, limit: &str, delay: Duration) -> Result<(), String> {
        self.0.pause_permits(limit, delay).await.map_err(text)
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
