//! The rate limit of lookups, and the parts of it that clients can use.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    domain::caller_name::CallerName,
    thingspace::{
        rate_limit::{NoPermit, RateLimit},
        shared::SharedRateLimits,
    },
};

/// The name of the rate limit of all lookups.
const ALL: &str = "lookups";
/// The name of the rate limit of the lookups of all clients.
const OF_CLIENTS: &str = "lookups/clients";
/// The prefix of the names of the rate limits of single callers.
const OF_CALLER: &str = "lookups/caller/";
/// Maximum number of callers with a rate limit of their own that are remembered: that of a policy file.
const MAX_CALLERS: usize = 1_000;

/// The origin of a lookup.
#[derive(Debug, Clone, Copy)]
pub(super) enum LookupOrigin<'a> {
    /// The gateway itself, which can wait for a permit until this time.
    Gateway(Instant),
    /// A client, which does not wait. Holds the caller, if a policy tells callers apart.
    Client(Option<&'a CallerName>),
}

/// The rate limit of lookups.
///
/// The gateway can use all of it. All clients together can use half of it, and each caller a quarter, at least one
/// lookup a minute each. So clients that repeat lookups leave half of the rate to the lookups of missing results, and a
/// single caller does not keep the others from their lookups.
pub(super) struct LookupLimits {
    per_minute: NonZeroU32,
    shared: Option<Arc<dyn SharedRateLimits>>,
    all: RateLimit,
    of_clients: RateLimit,
    of_callers: Mutex<HashMap<CallerName, Arc<RateLimit>>>,
}

impl LookupLimits {
    /// Creates the limits. Without `shared`, they hold for this process only.
    pub(super) fn new(per_minute: NonZeroU32, shared: Option<Arc<dyn SharedRateLimits>>) -> Self {
        Self {
            per_minute,
            all: RateLimit::new(ALL, per_minute, shared.clone()),
            of_clients: RateLimit::new(OF_CLIENTS, part(per_minute, 2), shared.clone()),
            of_callers: Mutex::default(),
            shared,
        }
    }

    /// Takes a permit for a lookup.
    pub(super) async fn acquire(&self, origin: LookupOrigin<'_>) -> Result<(), NoPermit> {
        match origin {
            LookupOrigin::Gateway(deadline) => self.all.acquire(deadline).await,
            LookupOrigin::Client(caller) => self.acquire_for_client(caller).await,
        }
    }

    /// Grants no permits for this long.
    pub(super) async fn pause(&self, delay: Duration) {
        self.all.pause(delay).await;
    }

    async fn acquire_for_client(&self, caller: Option<&CallerName>) -> Result<(), NoPermit> {
        let of_caller = caller.map(|caller| self.of_caller(caller));
        let limits = of_caller.as_deref().into_iter().chain([&self.of_clients, &self.all]);
        let limits: Vec<&RateLimit> = limits.collect();
        // While one of them is known to be exhausted, no permit of another one is taken in vain.
        for limit in &limits {
            limit.check_pause().map_err(NoPermit::Delayed)?;
        }
        for (index, limit) in limits.iter().enumerate() {
            if let Err(error) = limit.acquire(Instant::now()).await {
                for taken in limits.iter().take(index) {
                    taken.give_back().await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn of_caller(&self, caller: &CallerName) -> Arc<RateLimit> {
        let mut of_callers = self.of_callers.lock();
        if let Some(limit) = of_callers.get(caller) {
            return Arc::clone(limit);
        }
        if of_callers.len() >= MAX_CALLERS {
            // Policies with other callers have replaced each other.
            of_callers.clear();
        }
        let name = format!("{OF_CALLER}{caller}");
        let limit = RateLimit::new(name, part(self.per_minute, 4), self.shared.clone());
        let limit = Arc::new(limit);
        of_callers.insert(caller.clone(), Arc::clone(&limit));
        limit
    }
}

/// Returns a fraction of a rate, at least one.
fn part(per_minute: NonZeroU32, divisor: u32) -> NonZeroU32 {
    let part = per_minute.get().checked_div(divisor).and_then(NonZeroU32::new);
    part.unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests;
