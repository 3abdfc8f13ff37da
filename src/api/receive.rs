//! Reads one gRPC message within bounds, ahead of the library that decodes it.
//!
//! tonic sets aside what a message announces, and decodes it, before any handler of ours runs:
//! whoever announces 16 MiB two hundred times would have 3 GB.

use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{reason::Reason, status::Failure};

/// How long a message may take to arrive. Whoever sends slowly holds room that others wait for.
const WITHIN: Duration = Duration::from_secs(30);
/// A flag for compression, which is not spoken here, and four bytes of length ("gRPC over HTTP2").
const HEADER: usize = 5;

/// A call's message on its way in.
pub(super) struct Incoming {
    body: Body,
    read: BytesMut,
    /// Of the last frame, what was not wanted yet.
    pending: Bytes,
    until: Instant,
}

// === impl Incoming ===

impl Incoming {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            pending: Bytes::new(),
            until: Instant::now() + WITHIN,
        }
    }

    /// How many bytes the message has, if it is one: otherwise tonic is to say what is wrong.
    pub(super) async fn announced(&mut self) -> Result<Option<usize>, Failure> {
        self.read_up_to(HEADER).await?;
        let mut header = self.read.as_ref();
        if header.len() < HEADER || header.get_u8() != 0 {
            return Ok(None);
        }
        Ok(usize::try_from(header.get_u32()).ok())
    }

    /// The message itself, which has `length` bytes: fewer where the sender has stopped.
    pub(super) async fn message(&mut self, length: usize) -> Result<&[u8], Failure> {
        self.read
            .reserve((HEADER + length).saturating_sub(self.read.len()));
        self.read_up_to(HEADER + length).await?;
        let end = self.read.len().min(HEADER + length);
        Ok(self.read.get(HEADER..end).unwrap_or_default())
    }

    /// What was read, as a body of its own. What may come behind it is dropped.
    pub(super) fn into_body(self) -> Body {
        Body::from(Bytes::from(self.read))
    }

    async fn read_up_to(&mut self, length: usize) -> Result<(), Failure> {
        loop {
            let missing = length.saturating_sub(self.read.len());
            let part = self.pending.split_to(missing.min(self.pending.len()));
            self.read.extend_from_slice(&part);
            if part.len() == missing {
                return Ok(());
            }
            let frame = timeout_at(self.until, self.body.frame()).await;
            match frame.map_err(|_elapsed| too_slow())? {
                Some(Ok(frame)) => self.pending = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Err(broken()),
                None => return Ok(()),
            }
        }
    }
}

fn too_slow() -> Failure {
    let message = format!("the message did not arrive within {} s", WITHIN.as_secs());
    Failure::new(Reason::Deadline, message)
}

fn broken() -> Failure {
    Failure::new(Reason::Malformed, "the message broke off")
}
