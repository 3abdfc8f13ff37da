//! Bounds the bytes of all change messages in memory.
//!
//! A message reserves bytes as they arrive. Its length prefix reserves nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grpc::error::ApiError;

/// Bytes available to all messages.
#[derive(Debug)]
pub(in crate::grpc) struct ByteBudgetPool {
    /// For messages of up to [`SMALL_MESSAGE_BYTES`], which large ones must not displace.
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Bytes reserved by one message until it is validated.
#[derive(Debug)]
pub(in crate::grpc) struct ByteBudget(OwnedSemaphorePermit);

/// Maximum size of a small message. 10,000 eSIM devices take 0.6 MB.
const SMALL_MESSAGE_BYTES: usize = 1024 * 1024;

impl ByteBudgetPool {
    /// Divides `bytes` between large and small messages. They share one pool if less than
    /// [`SMALL_MESSAGE_BYTES`] would remain for small ones.
    pub(in crate::grpc) fn new(bytes: usize, max_message: usize) -> Self {
        let for_large = max_message.max(bytes / 2);
        let for_small = bytes.saturating_sub(for_large);
        if for_small < SMALL_MESSAGE_BYTES {
            let shared = Arc::new(Semaphore::new(bytes));
            return Self { small: Arc::clone(&shared), large: shared };
        }
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        Self { small: semaphore(for_small), large: semaphore(for_large) }
    }

    /// Returns an empty budget for a message. The size of a compressed message is not known: it counts as large.
    pub(in crate::grpc) fn budget(
        &self,
        length: usize,
        is_compressed: bool,
    ) -> Result<ByteBudget, ApiError> {
        let is_small = length <= SMALL_MESSAGE_BYTES && !is_compressed;
        reserve(if is_small { &self.small } else { &self.large }, 0).map(ByteBudget)
    }
}

impl ByteBudget {
    /// Reserves bytes up to `total`. Fails at once if the pool is exhausted: messages that hold bytes and wait for
    /// more would deadlock.
    pub(in crate::grpc) fn grow_to(&mut self, total: usize) -> Result<(), ApiError> {
        let missing = total.saturating_sub(self.0.num_permits());
        self.0.merge(reserve(self.0.semaphore(), missing)?);
        Ok(())
    }
}

fn reserve(pool: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(pool).try_acquire_many_owned(permits).map_err(|_exhausted| {
        let message = "too many message bytes in flight (limits.message_bytes); retry later";
        ApiError::overloaded(message)
    })
}

#[cfg(test)]
mod tests;
