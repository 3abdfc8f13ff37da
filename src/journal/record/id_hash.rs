//! The hash of an identifier in the index of a change's devices.

use crate::domain::matching::MatchKey;

/// The bits for the 20th digit of an ICCID.
const DIGIT_BITS: u32 = 0x0f;
/// The digit of other identifiers. An ICCID of 19 digits is the same as one of 20 digits that begins with it.
const NO_DIGIT: u32 = 0x0f;

/// The hash of an identifier: 28 bits for its kind and its index text, and 4 bits for the 20th digit of an ICCID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::journal) struct IdHash(pub(super) u32);

impl IdHash {
    pub(in crate::journal) fn of(key: &MatchKey) -> Self {
        let bytes = std::iter::once(key.kind() as u8).chain(key.index_text().bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // The last step of MurmurHash3, because the high bits of FNV-1a hardly depend on the last bytes.
        let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash >> 32) as u32;
        Self(hash & !DIGIT_BITS | key.iccid_digit_20().map_or(NO_DIGIT, u32::from))
    }

    /// Returns the lowest hash of an identifier that can be the same as this one.
    pub(in crate::journal) fn first(self) -> Self {
        Self(self.0 & !DIGIT_BITS)
    }

    /// True if the hashes differ in the 20th digit of an ICCID at most.
    pub(in crate::journal) fn has_same_first(self, other: Self) -> bool {
        self.first() == other.first()
    }

    /// True if the identifiers can be the same.
    pub(in crate::journal) fn can_be_same(self, other: Self) -> bool {
        let has_no_digit = |hash: Self| hash.0 & DIGIT_BITS == NO_DIGIT;
        self == other || self.has_same_first(other) && (has_no_digit(self) || has_no_digit(other))
    }
}
