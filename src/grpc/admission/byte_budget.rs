//! Room for the bytes of messages, which is taken as they come.
//!
//! What is announced takes none: two callers who announce the largest message and send nothing
//! would have all of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::grpc::error::ApiError;

/// Room for all messages.
#[derive(Debug)]
pub(crate) struct ByteBudgetPool {
    /// For messages of up to [`SMALL`] bytes: tokio's semaphore is fair, and they would wait behind
    /// one that wants more than there is.
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
}

/// The room of one message.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    pool: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Room that a message has until a change is made of it. Handed to the handler with its call.
#[derive(Debug, Clone)]
pub(crate) struct Permit(#[expect(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

/// Ten thousand eSIM devices are 0.6 MB.
const SMALL_MESSAGE_BYTES: usize = 1024 * 1024;
/// How long a call waits for room for the first bytes of its message.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that wait for it at a time: what they have sent already stands in their streams' windows.
pub(crate) const MAX_WAITERS: u32 = 256;

// === impl Rooms ===

impl ByteBudgetPool {
    /// Room for so many bytes: half of it for small messages, if the largest has room in the other.
    pub(crate) fn new(bytes: usize, max_message: usize) -> Self {
        let for_large = max_message.max(bytes / 2);
        let for_small = bytes.saturating_sub(for_large);
        let (small, large) = if for_small < SMALL_MESSAGE_BYTES {
            let all = Arc::new(Semaphore::new(bytes));
            (Arc::clone(&all), all)
        } else {
            let semaphore = |count| Arc::new(Semaphore::new(count));
            (semaphore(for_small), semaphore(for_large))
        };
        let waiting = Arc::new(Semaphore::new(MAX_WAITERS as usize));
        Self {
            small,
            large,
            waiters: waiting,
        }
    }

    /// True if messages of these two lengths share their room.
    pub(crate) fn is_same_pool(&self, one: usize, other: usize) -> bool {
        (one <= SMALL_MESSAGE_BYTES) == (other <= SMALL_MESSAGE_BYTES)
    }

    /// The room of a message of this length: none yet.
    pub(crate) fn budget_for(&self, length: usize) -> ByteBudget {
        let pool = if length <= SMALL_MESSAGE_BYTES {
            &self.small
        } else {
            &self.large
        };
        ByteBudget {
            pool: Arc::clone(pool),
            waiters: Arc::clone(&self.waiters),
            permit: None,
        }
    }
}

// === impl Room ===

impl ByteBudget {
    /// Takes room for so many more bytes. Whoever has none yet waits for it, not for long; whoever
    /// has some is refused instead: several that keep what they have and wait would wait for each
    /// other.
    pub(crate) async fn acquire(&mut self, bytes: usize) -> Result<(), ApiError> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let now = Arc::clone(&self.pool).try_acquire_many_owned(count);
        match (now, &mut self.permit) {
            (Ok(more), Some(taken)) => taken.merge(more),
            (Ok(first), None) => self.permit = Some(first),
            (Err(_), Some(_)) => return Err(byte_budget_exhausted()),
            (Err(_), None) => self.permit = Some(self.acquire_with_timeout(count).await?),
        }
        Ok(())
    }

    async fn acquire_with_timeout(&self, count: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        let _waits = self
            .waiters
            .try_acquire()
            .map_err(|_full| byte_budget_exhausted())?;
        match timeout(
            ACQUIRE_TIMEOUT,
            Arc::clone(&self.pool).acquire_many_owned(count),
        )
        .await
        {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(_)) | Err(_) => Err(byte_budget_exhausted()),
        }
    }

    pub(crate) fn into_permit(self) -> Option<Permit> {
        self.permit.map(|taken| Permit(Arc::new(taken)))
    }
}

fn byte_budget_exhausted() -> ApiError {
    ApiError::too_many_in_flight("messages are being read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn small_messages_have_their_own_pool_and_total_bytes_are_bounded() {
        let rooms = ByteBudgetPool::new(32 * MIB, 16 * MIB);
        let mut large = rooms.budget_for(16 * MIB);
        large.acquire(16 * MIB).await.unwrap();
        assert!(rooms.budget_for(2 * MIB).acquire(1).await.is_err());
        let mut small = Vec::new();
        for _ in 0..16 {
            let mut one = rooms.budget_for(MIB);
            one.acquire(MIB).await.unwrap();
            small.push(one);
        }
        assert!(rooms.budget_for(1).acquire(1).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_holds_bytes_does_not_wait_for_more() {
        let rooms = ByteBudgetPool::new(MIB, MIB);
        let (mut one, mut other) = (rooms.budget_for(MIB), rooms.budget_for(MIB));
        one.acquire(MIB - 10).await.unwrap();
        other.acquire(10).await.unwrap();
        let before = tokio::time::Instant::now();
        assert!(other.acquire(1).await.is_err());
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(other);
        one.acquire(10).await.unwrap();
    }
}
