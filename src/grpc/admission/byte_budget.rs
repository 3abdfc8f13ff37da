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

/// Bytes reserved by one message.
#[derive(Debug)]
pub(in crate::grpc) struct ByteBudget {
    pool: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Reserved bytes, held until the message is validated. Extension of the request.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct Permit(
    #[expect(dead_code, reason = "releases the bytes when dropped")] Arc<OwnedSemaphorePermit>,
);

/// Maximum size of a small message. 10,000 eSIM devices take 0.6 MB.
const SMALL_MESSAGE_BYTES: usize = 1024 * 1024;
impl ByteBudgetPool {
    /// Divides `bytes` between large and small messages. They share one pool if less than
    /// [`SMALL_MESSAGE_BYTES`] would remain for small ones.
    pub(in crate::grpc) fn new(bytes: usize, max_message: usize) -> Self {
        let for_large = max_message.max(bytes / 2);
        let for_small = bytes.saturating_sub(for_large);
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        let (small, large) = if for_small < SMALL_MESSAGE_BYTES {
            let shared = semaphore(bytes);
            (Arc::clone(&shared), shared)
        } else {
            (semaphore(for_small), semaphore(for_large))
        };
        Self { small, large }
    }

    /// Returns an empty budget for a message. The size of a compressed message is not known: it counts as large.
    pub(in crate::grpc) fn budget(&self, length: usize, is_compressed: bool) -> ByteBudget {
        let is_small = length <= SMALL_MESSAGE_BYTES && !is_compressed;
        let pool = if is_small { &self.small } else { &self.large };
        ByteBudget { pool: Arc::clone(pool), permit: None }
    }
}

impl ByteBudget {
    /// Reserves bytes up to `total`. Fails at once if the pool is exhausted: messages that hold bytes and wait for
    /// more would deadlock.
    pub(in crate::grpc) fn grow_to(&mut self, total: usize) -> Result<(), ApiError> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(total.saturating_sub(held)).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.pool).try_acquire_many_owned(missing) else {
            let message = "too many message bytes in flight (limits.message_bytes); retry later";
            return Err(ApiError::overloaded(message));
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    pub(in crate::grpc) fn into_permit(self) -> Option<Permit> {
        self.permit.map(|permit| Permit(Arc::new(permit)))
    }
}

#[cfg(test)]
mod tests;
