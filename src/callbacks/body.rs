//! Reads bodies within a byte budget.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use crate::{connections::ShareKey, telemetry::RejectionReason};

/// Maximum size of a callback, in bytes. Observed callbacks had 0.5 to 2.4 KB.
const MAX_BODY: usize = 256 * 1024;
/// Maximum number of bytes that are discarded. A sender reads the response only after it has sent its
/// body, and can lose the response if the connection closes before.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// Minimum permit of a callback, for its connection and its parsed form.
const MIN_PERMIT_BYTES: usize = 1_024;

/// Byte budget of the bodies of all callbacks, from their first byte until they are stored.
pub(super) struct BodyBudget {
    bytes: Arc<Semaphore>,
    shares: Arc<Shares>,
}

/// Byte budget of the bodies that wait to be quarantined: a quarter of all, so that they do not delay good callbacks.
pub(super) struct QuarantineBudget(Arc<Semaphore>);

/// The bytes that the clients with a share hold.
struct Shares {
    /// Bytes of one share: half of the budget.
    max_bytes: usize,
    held: Mutex<HashMap<ShareKey, usize>>,
}

/// The bytes of one body.
pub(super) struct BodyPermit {
    bytes: OwnedSemaphorePermit,
    share: Option<(ShareKey, Arc<Shares>)>,
}

impl QuarantineBudget {
    pub(super) fn new(callback_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(callback_bytes / 4)))
    }

    pub(super) fn try_acquire(
        &self,
        body: &BodyPermit,
    ) -> Result<OwnedSemaphorePermit, RejectionReason> {
        try_acquire(&self.0, body.bytes.num_permits())
    }
}

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        let shares = Shares { max_bytes: bytes / 2, held: Mutex::default() };
        Self { bytes: Arc::new(Semaphore::new(bytes)), shares: Arc::new(shares) }
    }

    fn permit(&self, share: Option<ShareKey>) -> Result<BodyPermit, RejectionReason> {
        let share = share.map(|key| (key, Arc::clone(&self.shares)));
        let mut permit = BodyPermit { bytes: try_acquire(&self.bytes, 0)?, share };
        permit.grow(MIN_PERMIT_BYTES)?;
        Ok(permit)
    }

    /// Reads a body of at most [`MAX_BODY`] bytes. Copies nothing if it arrives in one part.
    pub(super) async fn read(
        &self,
        body: &mut (impl Body<Data = Bytes> + Unpin),
        share: Option<ShareKey>,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<(Bytes, BodyPermit), RejectionReason> {
        let mut permit = self.permit(share)?;
        let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
        while !body.is_end_stream() {
            let frame = match within(deadline.as_mut(), body.frame()).await {
                Some(Some(Ok(frame))) => frame,
                Some(None) => break,
                Some(Some(Err(_))) | None => return Err(RejectionReason::IncompleteBody),
            };
            let data = frame.into_data().unwrap_or_default();
            let length = first.len() + whole.len();
            if length.saturating_add(data.len()) > MAX_BODY {
                return Err(RejectionReason::TooLarge);
            }
            permit.grow(data.len())?;
            if length == 0 {
                first = data;
            } else {
                whole.extend_from_slice(&std::mem::take(&mut first));
                whole.extend_from_slice(&data);
            }
        }
        let body = if whole.is_empty() { first } else { whole.freeze() };
        Ok((body, permit))
    }
}

impl BodyPermit {
    fn grow(&mut self, bytes: usize) -> Result<(), RejectionReason> {
        let more = try_acquire(self.bytes.semaphore(), bytes)?;
        if let Some((key, shares)) = &self.share {
            shares.reserve(*key, bytes)?;
        }
        self.bytes.merge(more);
        Ok(())
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        if let Some((key, shares)) = &self.share {
            shares.release(*key, self.bytes.num_permits());
        }
    }
}

impl Shares {
    fn reserve(&self, key: ShareKey, bytes: usize) -> Result<(), RejectionReason> {
        let mut held = self.held.lock();
        let total = held.get(&key).copied().unwrap_or_default().saturating_add(bytes);
        if total > self.max_bytes {
            return Err(RejectionReason::Overloaded);
        }
        held.insert(key, total);
        Ok(())
    }

    fn release(&self, key: ShareKey, bytes: usize) {
        let mut held = self.held.lock();
        if let Some(total) = held.get_mut(&key) {
            *total = total.saturating_sub(bytes);
            if *total == 0 {
                held.remove(&key);
            }
        }
    }
}

fn try_acquire(
    semaphore: &Arc<Semaphore>,
    bytes: usize,
) -> Result<OwnedSemaphorePermit, RejectionReason> {
    let bytes = u32::try_from(bytes).map_err(|_| RejectionReason::Overloaded)?;
    let permit = Arc::clone(semaphore).try_acquire_many_owned(bytes);
    permit.map_err(|_| RejectionReason::Overloaded)
}

/// Discards up to 4 MiB of a body. Returns true if it was read to its end.
pub(super) async fn discard(
    mut body: impl Body<Data = Bytes> + Unpin,
    mut deadline: Pin<&mut Sleep>,
) -> bool {
    let mut discarded: usize = 0;
    while discarded <= MAX_DISCARDED {
        match within(deadline.as_mut(), body.frame()).await {
            Some(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                discarded = discarded.saturating_add(data.len());
            }
            Some(None) => return true,
            Some(Some(Err(_))) | None => return false,
        }
    }
    false
}

/// Returns the output of a future, or `None` at the deadline. All waits of a request share one timer.
pub(super) async fn within<F: Future>(deadline: Pin<&mut Sleep>, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = deadline => None,
    }
}

#[cfg(test)]
mod tests;
