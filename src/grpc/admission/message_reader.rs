//! Reads one gRPC message within bounds, ahead of the library that decodes it.
//!
//! tonic sets aside what a message announces, and decodes it, before any handler of ours runs:
//! whoever announces 16 MiB two hundred times would have 3 GB.

use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::inflate::inflate;
use crate::grpc::{
    admission::{byte_budget::ByteBudget, inflight_reads::InFlightRead},
    error::{ApiError, reason::ErrorReason},
};

/// How often a part of a message has to have arrived.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// What is such a part. So the largest takes two minutes at most, and others are served meanwhile.
const MIN_PROGRESS_BYTES: usize = 64 * 1024;
const MAX_PROGRESS_STEPS: usize = 24;
/// A flag for compression, and four bytes of length ("gRPC over HTTP2").
pub(crate) const HEADER_LEN: usize = 5;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageHeader {
    /// True if the message is compressed, as the header `grpc-encoding` says.
    pub(crate) is_compressed: bool,
    /// Bytes of the message as sent.
    pub(crate) length: usize,
}

/// A call's message on its way in.
pub(crate) struct MessageReader {
    body: Body,
    inflight_read: InFlightRead,
    progress_timeout: Duration,
    buffer: BytesMut,
    /// Of the last frame, what was not wanted yet.
    pending: Bytes,
    /// When `read` has to have this length, or its message's.
    progress_deadline: Instant,
    progress_target: usize,
}

// === impl Incoming ===

impl MessageReader {
    /// A message that is sent part by part, each within `patience`.
    pub(crate) fn new(body: Body, arrival: InFlightRead, patience: Duration) -> Self {
        Self {
            body,
            inflight_read: arrival,
            progress_timeout: patience,
            buffer: BytesMut::new(),
            pending: Bytes::new(),
            progress_deadline: Instant::now() + patience,
            progress_target: HEADER_LEN,
        }
    }

    /// The header of the message. `None` if it is not a valid one: tonic returns the error.
    pub(crate) async fn read_header(&mut self) -> Result<Option<MessageHeader>, ApiError> {
        while let Some(part) = self.next_chunk(HEADER_LEN).await? {
            self.buffer.extend_from_slice(&part);
        }
        let mut header = self.buffer.as_ref();
        if header.len() < HEADER_LEN {
            return Ok(None);
        }
        let is_compressed = match header.get_u8() {
            0 => false,
            1 => true,
            _ => return Ok(None),
        };
        let length = usize::try_from(header.get_u32()).ok();
        Ok(length.map(|length| MessageHeader {
            is_compressed,
            length,
        }))
    }

    /// The message itself, which has `length` bytes: fewer where the sender has stopped. It takes
    /// room as it comes, where it is given any.
    pub(crate) async fn message(
        &mut self,
        length: usize,
        mut byte_budget: Option<&mut ByteBudget>,
    ) -> Result<(), ApiError> {
        let end = HEADER_LEN + length;
        let due = MIN_PROGRESS_BYTES.max(length / MAX_PROGRESS_STEPS);
        while let Some(part) = self.next_chunk(end).await? {
            if let Some(byte_budget) = byte_budget.as_deref_mut() {
                byte_budget.acquire(part.len()).await?;
            }
            self.keep(&part, end);
            if self.buffer.len() >= self.progress_target {
                self.progress_target = self.buffer.len() + due;
                self.progress_deadline = Instant::now() + self.progress_timeout;
            }
        }
        self.buffer.truncate(end);
        Ok(())
    }

    /// Replaces the gzip message that was read with its content, which has `size` bytes. `room` has
    /// `held` bytes for it already.
    pub(crate) async fn inflate(
        &mut self,
        size: usize,
        held: usize,
        byte_budget: Option<&mut ByteBudget>,
    ) -> Result<(), ApiError> {
        self.buffer = inflate(self.payload(), size, held, byte_budget).await?;
        Ok(())
    }

    /// The bytes of the message, without its header.
    pub(crate) fn payload(&self) -> &[u8] {
        self.buffer.get(HEADER_LEN..).unwrap_or_default()
    }

    /// What was read, as a body of its own. What may come behind it is dropped.
    pub(crate) fn into_body(self) -> Body {
        Body::from(Bytes::from(self.buffer))
    }

    /// Sets aside twice what was needed so far, but never more than will be.
    fn keep(&mut self, part: &[u8], end: usize) {
        let (length, capacity) = (self.buffer.len(), self.buffer.capacity());
        if capacity - length < part.len() {
            let wanted = (2 * capacity).max(length + part.len()).min(end);
            self.buffer.reserve(wanted.saturating_sub(length));
        }
        self.buffer.extend_from_slice(part);
    }

    /// The next bytes on the way to this length; none once it is reached, or the sender has stopped.
    async fn next_chunk(&mut self, length: usize) -> Result<Option<Bytes>, ApiError> {
        let missing = length.saturating_sub(self.buffer.len());
        if missing == 0 {
            return Ok(None);
        }
        loop {
            if !self.pending.is_empty() {
                let part = self.pending.split_to(missing.min(self.pending.len()));
                return Ok(Some(part));
            }
            let frame = tokio::select! {
                biased;
                frame = timeout_at(self.progress_deadline, self.body.frame()) => frame,
                () = self.inflight_read.evicted() => {
                    return Err(ApiError::too_many_in_flight("messages are arriving"));
                }
            };
            match frame.map_err(|_elapsed| self.progress_timed_out())? {
                Some(Ok(frame)) => self.pending = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Err(body_error()),
                None => return Ok(None),
            }
            if !self.pending.is_empty() {
                self.inflight_read.record_progress();
            }
        }
    }

    fn progress_timed_out(&self) -> ApiError {
        let patience = self.progress_timeout.as_secs();
        let message = format!("too little of the message arrived within {patience} s");
        ApiError::new(ErrorReason::Deadline, message)
    }
}

fn body_error() -> ApiError {
    ApiError::new(ErrorReason::Malformed, "the message broke off")
}
