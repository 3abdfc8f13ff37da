//! A short text without an allocation.

use std::hash::{Hash, Hasher};

/// A text of at most 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShortText {
    /// The text, then zeros: equal texts have equal bytes.
    bytes: [u8; Self::MAX_LEN],
    length: u8,
}

impl ShortText {
    pub(super) const MAX_LEN: usize = 32;

    /// Copies a text. Returns `None` if it is too long.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX_LEN];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn make_ascii_uppercase(&mut self) {
        self.bytes.make_ascii_uppercase();
    }

    /// Hashes the text and another byte in one step.
    pub(super) fn hash_with<H: Hasher>(&self, other: u8, state: &mut H) {
        let mut bytes = [other; Self::MAX_LEN + 1];
        if let Some(rest) = bytes.get_mut(1..) {
            rest.copy_from_slice(&self.bytes);
        }
        state.write(&bytes);
    }
}

impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_with(self.length, state);
    }
}
