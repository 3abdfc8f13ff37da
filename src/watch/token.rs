//! Resume tokens: opaque text for a position in one target's stream.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Buf, BufMut};

use crate::{
    domain::newtypes::{AccountName, ChangeId, RequestId},
    journal::{Cursor, Epoch, WatchTarget},
};

/// A position in the stream of one target of one journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// The journal.
    pub epoch: Epoch,
    /// Cursor of an event; [`Cursor::START`] if there was none.
    pub cursor: Cursor,
    /// Hash of that event; 0 if there was none.
    pub event_hash: u32,
    /// Start of the resumed stream, relative to the event.
    pub resume_point: ResumePoint,
    /// The change, request or account.
    pub target: WatchTarget,
    /// For an account: the number of removals by retention when the event was read. 0 for other targets.
    pub removals: u64,
}

/// Start of a resumed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    /// After the event.
    AfterEvent,
    /// At the event, which was the target's first.
    AtFirstEvent,
    /// At the first event: the target had none up to this position of the journal.
    NoEventsUpTo(u64),
}

/// A text that is not a token, or an incomplete one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid resume token")]
pub struct InvalidResumeToken;

const VERSION: u8 = 1;
const TAG_AFTER_EVENT: u8 = 1;
const TAG_AT_FIRST_EVENT: u8 = 2;
const TAG_NO_EVENTS: u8 = 3;
const TAG_CHANGE: u8 = 1;
const TAG_REQUEST: u8 = 2;
const TAG_ACCOUNT: u8 = 3;
/// Maximum length of the text: a request id has at most 128 bytes.
const MAX_TEXT: usize = 256;

impl ResumeToken {
    /// Encodes the token as text.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(64);
        self.put_bytes(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn put_bytes(&self, out: &mut Vec<u8>) {
        let (tag, position) = match self.resume_point {
            ResumePoint::AfterEvent => (TAG_AFTER_EVENT, self.cursor.position),
            ResumePoint::AtFirstEvent => (TAG_AT_FIRST_EVENT, self.cursor.position),
            ResumePoint::NoEventsUpTo(position) => (TAG_NO_EVENTS, position),
        };
        out.put_u8(VERSION);
        out.put_u64(self.epoch.0);
        out.put_u8(tag);
        out.put_u64(position);
        out.put_u32(self.cursor.index);
        out.put_u32(self.event_hash);
        match &self.target {
            WatchTarget::Change(id) => {
                out.put_u8(TAG_CHANGE);
                out.put_slice(id.as_bytes());
            }
            WatchTarget::Request(id) => {
                out.put_u8(TAG_REQUEST);
                out.put_slice(id.as_str().as_bytes());
            }
            WatchTarget::Account(name) => {
                out.put_u8(TAG_ACCOUNT);
                out.put_u64(self.removals);
                out.put_slice(name.as_str().as_bytes());
            }
        }
        out.put_u32(checksum(out));
    }

    /// Decodes a token. Its checksum detects a text that was cut or modified.
    pub fn decode(text: &str) -> Result<Self, InvalidResumeToken> {
        Self::try_decode(text).ok_or(InvalidResumeToken)
    }

    fn try_decode(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (mut body, check) = bytes.split_last_chunk::<4>()?;
        if checksum(body) != u32::from_be_bytes(*check) || body.try_get_u8().ok()? != VERSION {
            return None;
        }
        let epoch = Epoch(body.try_get_u64().ok()?);
        let tag = body.try_get_u8().ok()?;
        let position = body.try_get_u64().ok()?;
        let event = Cursor { position, index: body.try_get_u32().ok()? };
        let event_hash = body.try_get_u32().ok()?;
        let mut removals = 0;
        let target = match body.try_get_u8().ok()? {
            TAG_CHANGE => WatchTarget::Change(ChangeId::from_bytes(body.try_into().ok()?)),
            TAG_REQUEST => {
                let text = std::str::from_utf8(body).ok()?;
                WatchTarget::Request(RequestId::parse(text).ok()?)
            }
            TAG_ACCOUNT => {
                removals = body.try_get_u64().ok()?;
                let text = std::str::from_utf8(body).ok()?;
                WatchTarget::Account(AccountName::parse(text).ok()?)
            }
            _ => return None,
        };
        let (resume_point, cursor) = match tag {
            TAG_AFTER_EVENT => (ResumePoint::AfterEvent, event),
            TAG_AT_FIRST_EVENT => (ResumePoint::AtFirstEvent, event),
            TAG_NO_EVENTS if event.index == 0 && event_hash == 0 => {
                (ResumePoint::NoEventsUpTo(position), Cursor::START)
            }
            _ => return None,
        };
        Some(Self { epoch, cursor, event_hash, resume_point, target, removals })
    }
}

/// FNV-1a. Detects accidental changes, not forgery: a token grants no access that its target's name does not.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
