//! Room for the bytes of messages, which is taken as they come.
//!
//! What is announced takes none: two callers who announce the largest message and send nothing
//! would have all of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::grpc::error::Failure;

/// Room for all messages.
#[derive(Debug)]
pub(crate) struct Rooms {
    /// For messages of up to [`SMALL`] bytes: tokio's semaphore is fair, and they would wait behind
    /// one that wants more than there is.
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// The room of one message.
#[derive(Debug)]
pub(crate) struct Room {
    pool: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

/// Room that a message has until a change is made of it. Handed to the handler with its call.
#[derive(Debug, Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

/// Ten thousand eSIM devices are 0.6 MB.
const SMALL: usize = 1024 * 1024;
/// How long a call waits for room for the first bytes of its message.
const WAIT: Duration = Duration::from_secs(5);
/// Calls that wait for it at a time: what they have sent already stands in their streams' windows.
pub(crate) const MAX_WAITING: u32 = 256;

// === impl Rooms ===

impl Rooms {
    /// Room for so many bytes: half of it for small messages, if the largest has room in the other.
    pub(crate) fn new(bytes: usize, max_message: usize) -> Self {
        let for_large = max_message.max(bytes / 2);
        let for_small = bytes.saturating_sub(for_large);
        let (small, large) = if for_small < SMALL {
            let all = Arc::new(Semaphore::new(bytes));
            (Arc::clone(&all), all)
        } else {
            let places = |count| Arc::new(Semaphore::new(count));
            (places(for_small), places(for_large))
        };
        let waiting = Arc::new(Semaphore::new(MAX_WAITING as usize));
        Self {
            small,
            large,
            waiting,
        }
    }

    /// True if messages of these two lengths share their room.
    pub(crate) fn are_together(&self, one: usize, other: usize) -> bool {
        (one <= SMALL) == (other <= SMALL)
    }

    /// The room of a message of this length: none yet.
    pub(crate) fn of(&self, length: usize) -> Room {
        let pool = if length <= SMALL {
            &self.small
        } else {
            &self.large
        };
        Room {
            pool: Arc::clone(pool),
            waiting: Arc::clone(&self.waiting),
            taken: None,
        }
    }
}

// === impl Room ===

impl Room {
    /// Takes room for so many more bytes. Whoever has none yet waits for it, not for long; whoever
    /// has some is refused instead: several that keep what they have and wait would wait for each
    /// other.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let now = Arc::clone(&self.pool).try_acquire_many_owned(count);
        match (now, &mut self.taken) {
            (Ok(more), Some(taken)) => taken.merge(more),
            (Ok(first), None) => self.taken = Some(first),
            (Err(_), Some(_)) => return Err(beyond()),
            (Err(_), None) => self.taken = Some(self.wait_for(count).await?),
        }
        Ok(())
    }

    async fn wait_for(&self, count: u32) -> Result<OwnedSemaphorePermit, Failure> {
        let _waits = self.waiting.try_acquire().map_err(|_full| beyond())?;
        match timeout(WAIT, Arc::clone(&self.pool).acquire_many_owned(count)).await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(_)) | Err(_) => Err(beyond()),
        }
    }

    pub(crate) fn held(self) -> Option<Held> {
        self.taken.map(|taken| Held(Arc::new(taken)))
    }
}

fn beyond() -> Failure {
    Failure::too_much("messages are being read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn small_messages_have_room_of_their_own_and_all_bytes_together_are_bounded() {
        let rooms = Rooms::new(32 * MIB, 16 * MIB);
        let mut large = rooms.of(16 * MIB);
        large.grow(16 * MIB).await.unwrap();
        assert!(rooms.of(2 * MIB).grow(1).await.is_err());
        let mut small = Vec::new();
        for _ in 0..16 {
            let mut one = rooms.of(MIB);
            one.grow(MIB).await.unwrap();
            small.push(one);
        }
        assert!(rooms.of(1).grow(1).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_room_already_does_not_wait_for_more() {
        let rooms = Rooms::new(MIB, MIB);
        let (mut one, mut other) = (rooms.of(MIB), rooms.of(MIB));
        one.grow(MIB - 10).await.unwrap();
        other.grow(10).await.unwrap();
        let before = tokio::time::Instant::now();
        assert!(other.grow(1).await.is_err());
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(other);
        one.grow(10).await.unwrap();
    }
}
