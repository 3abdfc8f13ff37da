//! Shared state in memory, for tests.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    domain::clock::Timestamp,
    thingspace::shared::{SharedRateLimits, SharedSessionStore, StoredSession},
};

/// The state that the replicas share.
#[derive(Default)]
pub(in crate::thingspace) struct SharedStore {
    value: Mutex<Vec<u8>>,
    /// The holder of the lease and the end of the lease.
    lease: Mutex<Option<(u32, Instant)>>,
    replicas: AtomicU32,
    start: Mutex<Option<Instant>>,
}

/// The store as one replica sees it.
pub(in crate::thingspace) struct ReplicaStore {
    shared: Arc<SharedStore>,
    number: u32,
    is_away: AtomicBool,
}

impl SharedStore {
    /// Returns the store of a new replica.
    pub(in crate::thingspace) fn join(self: &Arc<Self>) -> Arc<ReplicaStore> {
        self.start.lock().get_or_insert_with(Instant::now);
        Arc::new(ReplicaStore {
            shared: Arc::clone(self),
            number: self.replicas.fetch_add(1, Ordering::Relaxed),
            is_away: AtomicBool::new(false),
        })
    }
}

impl ReplicaStore {
    /// Lets all requests of this replica fail.
    pub(in crate::thingspace) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), String> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err("the database is unavailable".into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl SharedSessionStore for ReplicaStore {
    async fn acquire_lease(&self, duration: Duration) -> Result<bool, String> {
        self.check()?;
        let mut lease = self.shared.lease.lock();
        let is_free =
            lease.is_none_or(|(holder, until)| holder == self.number || until < Instant::now());
        if is_free {
            *lease = Some((self.number, Instant::now() + duration));
        }
        Ok(is_free)
    }

    async fn release_lease(&self) -> Result<(), String> {
        self.check()?;
        self.shared.lease.lock().take_if(|(holder, _)| *holder == self.number);
        Ok(())
    }

    async fn load(&self) -> Result<StoredSession, String> {
        self.check()?;
        let elapsed = self.shared.start.lock().unwrap().elapsed();
        let time = Timestamp::from_micros(1_000_000_000_000).plus(elapsed);
        Ok(StoredSession { value: self.shared.value.lock().clone(), time })
    }

    async fn store(&self, value: Vec<u8>) -> Result<(), String> {
        self.check()?;
        *self.shared.value.lock() = value;
        Ok(())
    }
}

/// Grants every permit.
pub(in crate::thingspace) struct NoLimits;

#[async_trait]
impl SharedRateLimits for NoLimits {
    async fn take_permit(&self, _: &str, _: u32) -> Result<Result<(), Duration>, String> {
        Ok(Ok(()))
    }

    async fn give_back_permit(&self, _: &str, _: u32) -> Result<(), String> {
        Ok(())
    }

    async fn pause_permits(&self, _: &str, _: Duration) -> Result<(), String> {
        Ok(())
    }
}

/// Grants as many permits of each limit as it has a minute, and counts the requests.
#[derive(Default)]
pub(in crate::thingspace) struct CountingRateLimits {
    taken: Mutex<HashMap<String, u32>>,
    requests: AtomicUsize,
}

impl CountingRateLimits {
    pub(in crate::thingspace) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl SharedRateLimits for CountingRateLimits {
    async fn take_permit(
        &self,
        limit: &str,
        per_minute: u32,
    ) -> Result<Result<(), Duration>, String> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.taken.lock();
        let taken = taken.entry(limit.to_owned()).or_default();
        if *taken == per_minute {
            return Ok(Err(Duration::from_secs(1)));
        }
        *taken += 1;
        Ok(Ok(()))
    }

    async fn give_back_permit(&self, limit: &str, _: u32) -> Result<(), String> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        *self.taken.lock().get_mut(limit).ok_or("no permit was taken")? -= 1;
        Ok(())
    }

    async fn pause_permits(&self, _: &str, _: Duration) -> Result<(), String> {
        Ok(())
    }
}
