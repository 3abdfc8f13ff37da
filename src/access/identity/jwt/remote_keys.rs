//! Reads the key set of the issuer from its URL.
//!
//! One task reads it: every minute, and early when a token names an unknown key. Tokens with unknown keys
//! cost nothing to make, so at most one read starts in five seconds, and the number of calls that wait for
//! the next one is bounded. While the issuer is unavailable, the last key set stays in force.

use std::{error::Error, iter, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, header::ACCEPT};
use tokio::{
    select,
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use url::Url;

use crate::{
    access::identity::jwt::{
        key_set::{KeySet, KeySetError, MAX_SET_BYTES},
        trusted_keys::TrustedKeys,
    },
    domain::backoff::Backoff,
    thingspace::no_retry_client,
};

/// Maximum number of calls that wait for a read.
const MAX_WAITING: usize = 256;

/// When the key set is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadTimes {
    /// Interval between two reads.
    pub(super) interval: Duration,
    /// Shortest time between the starts of two reads.
    pub(super) min_interval: Duration,
    /// Maximum duration of a read.
    pub(super) timeout: Duration,
}

impl Default for ReadTimes {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            min_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Reads a key set from a URL.
pub(super) struct RemoteKeys {
    client: Client,
    url: Url,
    times: ReadTimes,
    keys: Arc<TrustedKeys>,
    state: watch::Sender<ReadState>,
    waiting: Semaphore,
}

#[derive(Debug, Clone, Copy, Default)]
struct ReadState {
    /// Number of reads that have started. There is one at a time.
    started: u64,
    /// Number of reads that have ended.
    ended: u64,
    /// True if a call waits for a read that has not started.
    is_wanted: bool,
}

/// Result of a request to read the keys early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EarlyRead {
    /// The key is known, or a read that started after the request has ended, successfully or not.
    Ended,
    /// Too many calls wait, or the read takes too long.
    Busy,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{}", causes(.0))]
    Http(#[from] reqwest::Error),
    #[error("the response has status {0}, expected 200; redirects are not followed")]
    Status(StatusCode),
    #[error("the response is not a key set: {0}")]
    Content(#[from] KeySetError),
}

impl RemoteKeys {
    /// Prepares reads. [`RemoteKeys::run`] executes them.
    ///
    /// # Errors
    ///
    /// The TLS set-up failed, usually because of the system's certificates.
    pub(super) fn new(
        url: Url,
        keys: Arc<TrustedKeys>,
        times: ReadTimes,
    ) -> Result<Self, reqwest::Error> {
        let client = no_retry_client(&url, times.timeout).build()?;
        Ok(Self {
            client,
            url,
            times,
            keys,
            state: watch::Sender::default(),
            waiting: Semaphore::new(MAX_WAITING),
        })
    }

    /// Reads the key set again and again.
    pub(super) async fn run(&self) {
        let retries = Backoff { initial: self.times.min_interval, max: self.times.interval };
        let mut failures = 0_u32;
        let mut requests = self.state.subscribe();
        loop {
            let start = Instant::now();
            self.state.send_modify(|state| {
                state.started += 1;
                state.is_wanted = false;
            });
            failures = self.read_and_log(failures).await;
            self.state.send_modify(|state| state.ended = state.started);
            let delay = if failures == 0 { self.times.interval } else { retries.delay(failures) };
            sleep_until(start + self.times.min_interval).await;
            select! {
                () = sleep_until(start + delay) => {}
                _ = requests.wait_for(|state| state.is_wanted) => {}
            }
        }
    }

    /// Asks for a read before its time, and waits for its end, or until another read has made the key known. A read that
    /// started before may have the keys of an earlier time.
    pub(super) async fn read_early(&self, is_known: impl Fn() -> bool) -> EarlyRead {
        let Ok(_place) = self.waiting.try_acquire() else {
            return EarlyRead::Busy;
        };
        let mut changes = self.state.subscribe();
        // One read answers all calls that wait.
        let mut awaited = 0;
        self.state.send_if_modified(|state| {
            awaited = state.started + 1;
            !std::mem::replace(&mut state.is_wanted, true)
        });
        let ended = changes.wait_for(|state| state.ended >= awaited || is_known());
        match timeout(self.times.min_interval + self.times.timeout, ended).await {
            Ok(Ok(_)) => EarlyRead::Ended,
            _ => EarlyRead::Busy,
        }
    }

    /// Reads the key set. Returns the new number of consecutive failures, of which only the first is logged.
    async fn read_and_log(&self, failures: u32) -> u32 {
        match self.read().await {
            Ok(set) => {
                self.keys.replace(set);
                if failures > 0 {
                    tracing::info!(failures, "the key set of the issuer can be read again");
                }
                0
            }
            Err(error) => {
                if failures == 0 {
                    let remedy = match self.keys.current() {
                        Some(_) => "the last key set stays in force",
                        None => "every token is refused until it can be read",
                    };
                    let url = self.url.as_str();
                    tracing::warn!(%error, url, "cannot read auth.jwt_jwks_url; {remedy}");
                }
                failures.saturating_add(1)
            }
        }
    }

    async fn read(&self) -> Result<KeySet, ReadError> {
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(ReadError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(KeySetError::TooLarge.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(KeySet::parse(&body)?)
    }
}

/// The message of an error with all its causes: reqwest's own message names none.
fn causes(error: &reqwest::Error) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
