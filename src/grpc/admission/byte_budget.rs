//! Bounds the bytes of all change messages in memory.
//!
//! A message reserves bytes as they arrive. Its length prefix reserves nothing.

use std::sync::Arc;

use crate::{
    domain::caller_name::CallerName,
    grpc::error::ApiError,
    shares::{CallerShares, SharePermit, SharedLimit},
};

/// Bytes available to all messages, divided among the callers.
#[derive(Debug)]
pub(in crate::grpc) struct ByteBudgetPool {
    /// For messages of up to [`SMALL_MESSAGE_BYTES`], which large ones must not displace.
    small: Arc<SharedLimit>,
    large: Arc<SharedLimit>,
}

/// The bytes available to the messages of one caller.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct CallerBytes<'a> {
    pool: &'a ByteBudgetPool,
    caller: &'a CallerName,
}

/// Bytes reserved by one message until it is validated.
#[derive(Debug)]
pub(in crate::grpc) struct ByteBudget(SharePermit);

/// Maximum size of a small message. 10,000 eSIM devices take 0.6 MB.
const SMALL_MESSAGE_BYTES: usize = 1024 * 1024;

impl ByteBudgetPool {
    /// Divides `bytes` between large and small messages. They share one pool if less than
    /// [`SMALL_MESSAGE_BYTES`] would remain for small ones.
    pub(in crate::grpc) fn new(bytes: usize, max_message: usize, shares: &CallerShares) -> Self {
        let for_large = max_message.max(bytes / 2);
        let for_small = bytes.saturating_sub(for_large);
        if for_small < SMALL_MESSAGE_BYTES {
            let shared = shares.limit(bytes, max_message);
            return Self { small: Arc::clone(&shared), large: shared };
        }
        Self {
            small: shares.limit(for_small, SMALL_MESSAGE_BYTES),
            large: shares.limit(for_large, max_message),
        }
    }

    /// Returns the bytes of a caller.
    pub(in crate::grpc) fn of<'a>(&'a self, caller: &'a CallerName) -> CallerBytes<'a> {
        CallerBytes { pool: self, caller }
    }
}

impl CallerBytes<'_> {
    /// Returns an empty budget for a message. The size of a compressed message is not known: it counts as large.
    pub(in crate::grpc) fn budget(
        &self,
        length: usize,
        is_compressed: bool,
    ) -> Result<ByteBudget, ApiError> {
        let is_small = length <= SMALL_MESSAGE_BYTES && !is_compressed;
        let pool = if is_small { &self.pool.small } else { &self.pool.large };
        pool.try_acquire(self.caller, 0).map(ByteBudget).ok_or_else(exhausted)
    }
}

impl ByteBudget {
    /// Returns the number of reserved bytes.
    pub(in crate::grpc) fn bytes(&self) -> usize {
        self.0.amount()
    }

    /// Reserves bytes up to `total`. Fails at once if the pool is exhausted: messages that hold bytes and wait for
    /// more would deadlock.
    pub(in crate::grpc) fn grow_to(&mut self, total: usize) -> Result<(), ApiError> {
        let missing = total.saturating_sub(self.0.amount());
        if self.0.try_grow(missing) { Ok(()) } else { Err(exhausted()) }
    }
}

fn exhausted() -> ApiError {
    ApiError::overloaded("too many message bytes in flight (limits.message_bytes); retry later")
}

#[cfg(test)]
mod tests;
