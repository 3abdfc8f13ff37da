//! The stored forms of changes, results and devices. Every engine stores these bytes.
//!
//! Records are protobuf messages, so that a later version can add fields. A result is stored as the
//! message that a watch sends. Devices are packed, because a change can have 10,000 of them.

mod change;
mod devices;
mod id_hash;
mod result;

pub(super) use change::{ChangeRecord, StatusRecord};
pub(super) use devices::{
    DEVICES_PER_BLOCK, EncodedDevices, KEY_BYTES, bitmap_contains, decode_block, decode_device,
    encode_bitmap, find_in_part, packed_key, part_of,
};
pub(super) use id_hash::IdHash;
pub use result::ResultRecord;
pub(super) use result::{DIGEST_LENGTH, Digest, digest_of, encode_link, receive_time};
pub(crate) use result::{decode_result, encode_result};

/// A stored value that cannot be decoded: the journal was modified or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {0} cannot be decoded")]
pub struct InvalidRecord(pub(super) &'static str);
