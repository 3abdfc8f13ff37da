//! Resume tokens: opaque text for a place in one target's stream.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    domain::newtypes::{ChangeId, RequestId},
    journal::{Cursor, Epoch, WatchTarget},
};

/// A place in the stream of one target of one journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Which journal.
    pub epoch: Epoch,
    /// An event; [`Place::START`] where there was none.
    pub place: Cursor,
    /// A short hash of that event; 0 where there was none.
    pub mark: u32,
    /// Where the stream goes on.
    pub side: Side,
    /// Whose stream.
    pub target: WatchTarget,
}

/// Where a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Behind the event.
    After,
    /// With the event, which was the target's first.
    Before,
    /// With the first event: the target had none yet when the journal had reached this position.
    NoneUpTo(u64),
}

/// A text that is no token, or was not copied whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a resume token of this service")]
pub struct UnreadableToken;

const VERSION: u8 = 1;
const AFTER: u8 = 1;
const BEFORE: u8 = 2;
const NONE: u8 = 3;
const CHANGE: u8 = 1;
const REQUEST: u8 = 2;
/// No request id is longer than 128 bytes.
const MAX_TEXT: usize = 256;

// === impl Token ===

impl Token {
    /// The token as text.
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        // A place is none of the journal's where there was no event yet.
        let (side, position) = match self.side {
            Side::After => (AFTER, self.place.position),
            Side::Before => (BEFORE, self.place.position),
            Side::NoneUpTo(position) => (NONE, position),
        };
        out.push(side);
        out.extend_from_slice(&position.to_be_bytes());
        out.extend_from_slice(&self.place.index.to_be_bytes());
        out.extend_from_slice(&self.mark.to_be_bytes());
        match &self.target {
            WatchTarget::Change(id) => {
                out.push(CHANGE);
                out.extend_from_slice(id.as_bytes());
            }
            WatchTarget::Request(id) => {
                out.push(REQUEST);
                out.extend_from_slice(id.as_str().as_bytes());
            }
        }
        let check = checksum(&out);
        out.extend_from_slice(&check.to_be_bytes());
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Reads a token. A text that was cut or changed is told from one that is
    /// merely too old.
    pub fn decode(text: &str) -> Result<Self, UnreadableToken> {
        if text.len() > MAX_TEXT {
            return Err(UnreadableToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| UnreadableToken)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(UnreadableToken)?;
        if checksum(body) != u32::from_be_bytes(*check) {
            return Err(UnreadableToken);
        }
        Self::read(body).ok_or(UnreadableToken)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (version, rest) = body.split_first()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (side, rest) = rest.split_first()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (mark, rest) = rest.split_first_chunk::<4>()?;
        let (kind, name) = rest.split_first()?;
        let target = match *kind {
            CHANGE => WatchTarget::Change(ChangeId::from_bytes(name.try_into().ok()?)),
            REQUEST => {
                let text = std::str::from_utf8(name).ok()?;
                WatchTarget::Request(RequestId::parse(text).ok()?)
            }
            _ => return None,
        };
        let position = u64::from_be_bytes(*position);
        let event = Cursor {
            position,
            index: u32::from_be_bytes(*index),
        };
        let (side, place) = match *side {
            AFTER => (Side::After, event),
            BEFORE => (Side::Before, event),
            NONE if event.index == 0 && *mark == [0; 4] => {
                (Side::NoneUpTo(position), Cursor::START)
            }
            _ => return None,
        };
        (*version == VERSION).then(|| Self {
            epoch: Epoch(u64::from_be_bytes(*epoch)),
            place,
            mark: u32::from_be_bytes(*mark),
            side,
            target,
        })
    }
}

/// FNV-1a: finds texts that were cut or mistyped. It protects no secret: a
/// token grants nothing that naming its target would not.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_token_is_read_back_whole_and_never_when_anything_about_it_changed(
            epoch: u64, position: u64, index: u32, mark: u32,
            id: [u8; 16], request in "[!-~]{1,128}", of_change: bool,
            side in 0..3, at: prop::sample::Index, other: u8,
        ) {
            let target = if of_change {
                WatchTarget::Change(ChangeId::from_bytes(id))
            } else {
                WatchTarget::Request(RequestId::parse(request).unwrap())
            };
            let event = Cursor { position, index };
            let (side, place, mark) = match side {
                0 => (Side::After, event, mark),
                1 => (Side::Before, event, mark),
                _ => (Side::NoneUpTo(position), Cursor::START, 0),
            };
            let token = Token { epoch: Epoch(epoch), place, mark, side, target };
            let text = token.encode();
            prop_assert_eq!(Token::decode(&text), Ok(token));
            let at = at.index(text.len());
            prop_assert_eq!(Token::decode(text.get(..at).unwrap()), Err(UnreadableToken));
            let mut changed = text.clone().into_bytes();
            changed[at] = b'!'.wrapping_add(other % 90);
            let changed = String::from_utf8(changed).unwrap();
            if changed != text {
                prop_assert_eq!(Token::decode(&changed), Err(UnreadableToken));
            }
        }

        #[test]
        fn no_text_at_all_makes_reading_a_token_panic(text: String) {
            prop_assert!(Token::decode(&text).is_err());
        }
    }
}
