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
    admission::{byte_budget::Room, inflight_reads::Arrival},
    error::{Failure, reason::Reason},
};

/// How often a part of a message has to have arrived.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// What is such a part. So the largest takes two minutes at most, and others are served meanwhile.
const PART: usize = 64 * 1024;
const PARTS: usize = 24;
/// A flag for compression, and four bytes of length ("gRPC over HTTP2").
pub(crate) const HEADER: usize = 5;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// True if the message is compressed, as the header `grpc-encoding` says.
    pub(crate) is_compressed: bool,
    /// Bytes of the message as sent.
    pub(crate) length: usize,
}

/// A call's message on its way in.
pub(crate) struct Incoming {
    body: Body,
    arrival: Arrival,
    patience: Duration,
    read: BytesMut,
    /// Of the last frame, what was not wanted yet.
    pending: Bytes,
    /// When `read` has to have this length, or its message's.
    until: Instant,
    due: usize,
}

// === impl Incoming ===

impl Incoming {
    /// A message that is sent part by part, each within `patience`.
    pub(crate) fn new(body: Body, arrival: Arrival, patience: Duration) -> Self {
        Self {
            body,
            arrival,
            patience,
            read: BytesMut::new(),
            pending: Bytes::new(),
            until: Instant::now() + patience,
            due: HEADER,
        }
    }

    /// The header of the message. `None` if it is not a valid one: tonic returns the error.
    pub(crate) async fn announced(&mut self) -> Result<Option<Announced>, Failure> {
        while let Some(part) = self.part(HEADER).await? {
            self.read.extend_from_slice(&part);
        }
        let mut header = self.read.as_ref();
        if header.len() < HEADER {
            return Ok(None);
        }
        let is_compressed = match header.get_u8() {
            0 => false,
            1 => true,
            _ => return Ok(None),
        };
        let length = usize::try_from(header.get_u32()).ok();
        Ok(length.map(|length| Announced {
            is_compressed,
            length,
        }))
    }

    /// The message itself, which has `length` bytes: fewer where the sender has stopped. It takes
    /// room as it comes, where it is given any.
    pub(crate) async fn message(
        &mut self,
        length: usize,
        mut room: Option<&mut Room>,
    ) -> Result<(), Failure> {
        let end = HEADER + length;
        let due = PART.max(length / PARTS);
        while let Some(part) = self.part(end).await? {
            if let Some(room) = room.as_deref_mut() {
                room.grow(part.len()).await?;
            }
            self.keep(&part, end);
            if self.read.len() >= self.due {
                self.due = self.read.len() + due;
                self.until = Instant::now() + self.patience;
            }
        }
        self.read.truncate(end);
        Ok(())
    }

    /// Replaces the gzip message that was read with its content, which has `size` bytes. `room` has
    /// `held` bytes for it already.
    pub(crate) async fn inflate(
        &mut self,
        size: usize,
        held: usize,
        room: Option<&mut Room>,
    ) -> Result<(), Failure> {
        self.read = inflate(self.content(), size, held, room).await?;
        Ok(())
    }

    /// The bytes of the message, without its header.
    pub(crate) fn content(&self) -> &[u8] {
        self.read.get(HEADER..).unwrap_or_default()
    }

    /// What was read, as a body of its own. What may come behind it is dropped.
    pub(crate) fn into_body(self) -> Body {
        Body::from(Bytes::from(self.read))
    }

    /// Sets aside twice what was needed so far, but never more than will be.
    fn keep(&mut self, part: &[u8], end: usize) {
        let (length, capacity) = (self.read.len(), self.read.capacity());
        if capacity - length < part.len() {
            let wanted = (2 * capacity).max(length + part.len()).min(end);
            self.read.reserve(wanted.saturating_sub(length));
        }
        self.read.extend_from_slice(part);
    }

    /// The next bytes on the way to this length; none once it is reached, or the sender has stopped.
    async fn part(&mut self, length: usize) -> Result<Option<Bytes>, Failure> {
        let missing = length.saturating_sub(self.read.len());
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
                frame = timeout_at(self.until, self.body.frame()) => frame,
                () = self.arrival.displaced() => {
                    return Err(Failure::too_much("messages are arriving"));
                }
            };
            match frame.map_err(|_elapsed| self.too_slow())? {
                Some(Ok(frame)) => self.pending = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Err(broken()),
                None => return Ok(None),
            }
            if !self.pending.is_empty() {
                self.arrival.progress();
            }
        }
    }

    fn too_slow(&self) -> Failure {
        let patience = self.patience.as_secs();
        let message = format!("too little of the message arrived within {patience} s");
        Failure::new(Reason::Deadline, message)
    }
}

fn broken() -> Failure {
    Failure::new(Reason::Malformed, "the message broke off")
}
