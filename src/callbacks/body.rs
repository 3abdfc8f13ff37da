//! Reads bodies within a byte budget.

use std::{pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use crate::telemetry::RejectionReason;

/// Maximum size of a callback, in bytes. Observed callbacks had 0.5 to 2.4 KB.
const MAX_BODY: usize = 256 * 1024;
/// Maximum number of bytes that are discarded. A sender reads the response only after it has sent its
/// body, and can lose the response if the connection closes before.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// Minimum permit of a callback, for its connection and its parsed form.
const MIN_PERMIT_BYTES: usize = 1_024;

/// Byte budget of the bodies of all callbacks, from their first byte until they are stored.
pub(super) struct BodyBudget(Arc<Semaphore>);

/// Share of one body.
pub(super) type BodyPermit = OwnedSemaphorePermit;

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn try_acquire(&self, bytes: usize) -> Result<BodyPermit, RejectionReason> {
        let bytes = u32::try_from(bytes).map_err(|_| RejectionReason::Overloaded)?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        permit.map_err(|_| RejectionReason::Overloaded)
    }

    /// Reads a body of at most [`MAX_BODY`] bytes. Copies nothing if it arrives in one part.
    pub(super) async fn read(
        &self,
        body: &mut (impl Body<Data = Bytes> + Unpin),
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<(Bytes, BodyPermit), RejectionReason> {
        let mut permit = self.try_acquire(MIN_PERMIT_BYTES)?;
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
            permit.merge(self.try_acquire(data.len())?);
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
