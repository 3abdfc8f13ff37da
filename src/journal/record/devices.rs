//! The devices of a change: packed in blocks, with an index by identifier.
//!
//! Neither is ever modified. A block has the devices in the order of the request. A device is its client
//! reference and its identifiers, and an identifier of digits takes half a byte for each. The index has an
//! [`IdHash`] for each identifier; equal hashes are compared by their identifiers.

use bytes::{Buf, BufMut};

use crate::{
    domain::{
        change::SentDevice,
        identifier::{DeviceId, IdentifierKind},
        matching::MatchKey,
        newtypes::ClientReference,
    },
    journal::record::{IdHash, InvalidRecord},
};

/// Number of devices in a block. The blocks of a change are full, except the last one. Blocks of about 500
/// bytes fill the pages of a database well.
pub(in crate::journal) const DEVICES_PER_BLOCK: u32 = 16;
/// Average number of index entries in a part of the index, of about 500 bytes.
const KEYS_PER_PART: usize = 64;
/// Bytes of an index entry.
pub(in crate::journal) const KEY_BYTES: usize = 8;
/// Flag of an identifier whose characters are not all digits.
const NOT_PACKED: u8 = 0x80;

/// An entry of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::journal) struct DeviceKey {
    /// The hash of an identifier.
    pub(in crate::journal) hash: IdHash,
    /// The index of the device that was sent with it.
    pub(in crate::journal) device_index: u32,
}

/// All devices of a change.
#[derive(Debug, Default)]
pub(in crate::journal) struct EncodedDevices {
    pub(in crate::journal) blocks: Vec<Vec<u8>>,
    /// The index, sorted.
    pub(in crate::journal) keys: Vec<DeviceKey>,
}

impl EncodedDevices {
    pub(in crate::journal) fn encode(devices: &[SentDevice]) -> Self {
        let mut keys = Vec::with_capacity(2 * devices.len());
        for (device_index, device) in (0..).zip(devices) {
            let ids = device.ids.iter().map(MatchKey::from_id);
            keys.extend(ids.map(|key| DeviceKey { hash: IdHash::of(&key), device_index }));
        }
        keys.sort_unstable();
        keys.dedup();
        let blocks = devices.chunks(DEVICES_PER_BLOCK as usize).map(|devices| {
            let mut block = Vec::with_capacity(devices.len() * 40);
            devices.iter().for_each(|device| encode_device(device, &mut block));
            block
        });
        Self { blocks: blocks.collect(), keys }
    }

    /// Returns the devices of all blocks of a change, with their index.
    pub(in crate::journal) fn from_blocks(blocks: Vec<Vec<u8>>) -> Result<Self, InvalidRecord> {
        let mut devices = Vec::new();
        for block in &blocks {
            devices.extend(decode_block(block)?);
        }
        Ok(Self { keys: Self::encode(&devices).keys, blocks })
    }

    /// Returns the approximate size in memory, in bytes.
    pub(in crate::journal) fn size(&self) -> usize {
        let blocks: usize =
            self.blocks.iter().map(|block| size_of::<Vec<u8>>() + block.len()).sum();
        blocks + size_of_val(self.keys.as_slice())
    }

    /// Returns the block, if there is only one.
    pub(in crate::journal) fn only_block(&self) -> Option<&Vec<u8>> {
        self.blocks.first().filter(|_| self.blocks.len() == 1)
    }

    /// Decodes all devices.
    pub(in crate::journal) fn decode(&self) -> Result<Vec<SentDevice>, InvalidRecord> {
        let mut devices = Vec::new();
        for block in &self.blocks {
            devices.extend(decode_block(block)?);
        }
        Ok(devices)
    }

    /// Decodes one device.
    pub(in crate::journal) fn device(&self, index: u32) -> Result<SentDevice, InvalidRecord> {
        let block = usize::try_from(index / DEVICES_PER_BLOCK).ok();
        let block = block.and_then(|block| self.blocks.get(block));
        decode_device(block.map_or(&[], Vec::as_slice), index % DEVICES_PER_BLOCK)
    }

    /// Returns the indexes of the devices that may have an identifier, by its hash.
    pub(in crate::journal) fn candidates(&self, hash: IdHash) -> impl Iterator<Item = u32> {
        let from = self.keys.partition_point(|key| key.hash < hash.first());
        let rest = self.keys.get(from..).unwrap_or_default();
        let rest = rest.iter().take_while(move |key| key.hash.has_same_first(hash));
        rest.filter(move |key| key.hash.can_be_same(hash)).map(|key| key.device_index)
    }

    /// Returns the index in parts, by [`part_of`].
    pub(in crate::journal) fn key_parts(&self) -> Vec<Vec<u8>> {
        let mut parts = vec![Vec::new(); part_count(self.keys.len())];
        for key in &self.keys {
            if let Some(part) = parts.get_mut(part_of(key.hash, self.keys.len())) {
                part.put_u32_le(key.hash.0);
                part.put_u32_le(key.device_index);
            }
        }
        parts
    }
}

/// Returns the number of parts of an index.
fn part_count(key_count: usize) -> usize {
    key_count.div_ceil(KEYS_PER_PART)
}

/// Returns the number of the part that has a hash: parts divide the range of hashes evenly. Identifiers that can be
/// the same are in one part.
pub(in crate::journal) fn part_of(hash: IdHash, key_count: usize) -> usize {
    let scaled = u64::from(hash.first().0) * part_count(key_count) as u64;
    usize::try_from(scaled >> 32).unwrap_or_default()
}

/// Returns the indexes of the devices in a part of the index that may have an identifier, by its hash.
pub(in crate::journal) fn find_in_part(part: &[u8], hash: IdHash) -> Vec<u32> {
    let (entries, _) = part.as_chunks::<KEY_BYTES>();
    let decode = |entry: &[u8; KEY_BYTES]| {
        let mut entry = entry.as_slice();
        (IdHash(entry.get_u32_le()), entry.get_u32_le())
    };
    let from = entries.partition_point(|entry| decode(entry).0 < hash.first());
    let rest = entries.iter().skip(from).map(decode);
    let rest = rest.take_while(|(found, _)| found.has_same_first(hash));
    rest.filter(|(found, _)| found.can_be_same(hash)).map(|(_, index)| index).collect()
}

/// Returns an identifier as a key of the index over all small changes: its kind, and two digits in each byte.
/// Sequential identifiers are neighbours.
pub(in crate::journal) fn packed_key(key: &MatchKey) -> Vec<u8> {
    let id = key.index_text();
    let mut out = Vec::with_capacity(1 + id.len());
    out.put_u8(key.kind() as u8);
    if id.bytes().all(|byte| byte.is_ascii_digit()) {
        pack_digits(id.as_bytes(), &mut out);
    } else {
        out.put_slice(id.as_bytes());
    }
    out
}

fn pack_digits(digits: &[u8], out: &mut Vec<u8>) {
    for pair in digits.chunks(2) {
        out.put_u8(pair.iter().fold(0, |byte, digit| byte << 4 | (digit & 0x0f)));
    }
}

/// Encodes a set of device indexes, one bit each.
pub(in crate::journal) fn encode_bitmap(indexes: &[u32]) -> Vec<u8> {
    let length = indexes.iter().max().map_or(0, |last| last / 8 + 1);
    let mut bitmap = vec![0; usize::try_from(length).unwrap_or_default()];
    for index in indexes {
        if let Some(byte) = bitmap.get_mut(*index as usize / 8) {
            *byte |= 1 << (index % 8);
        }
    }
    bitmap
}

/// True if a set of device indexes contains one.
pub(in crate::journal) fn bitmap_contains(bitmap: &[u8], index: u32) -> bool {
    bitmap.get(index as usize / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
}

fn encode_device(device: &SentDevice, out: &mut Vec<u8>) {
    let reference = device.client_reference.as_str().as_bytes();
    // A reference has at most 64 characters, 256 bytes.
    out.put_u16_le(u16::try_from(reference.len()).unwrap_or_default());
    out.put_slice(reference);
    out.put_u8(u8::try_from(device.ids.len()).unwrap_or_default());
    for id in &device.ids {
        encode_id(id, out);
    }
}

/// Encodes the kind, the length, and two digits in each byte.
fn encode_id(id: &DeviceId, out: &mut Vec<u8>) {
    let text = id.id().as_bytes();
    let is_packed = text.iter().all(u8::is_ascii_digit);
    out.put_u8(id.kind() as u8 | if is_packed { 0 } else { NOT_PACKED });
    out.put_u8(u8::try_from(text.len()).unwrap_or_default());
    if !is_packed {
        return out.put_slice(text);
    }
    pack_digits(text, out);
}

/// Decodes the devices of a block.
pub(in crate::journal) fn decode_block(block: &[u8]) -> Result<Vec<SentDevice>, InvalidRecord> {
    let mut rest = block;
    let mut devices = Vec::new();
    while !rest.is_empty() {
        devices.push(take_device(&mut rest).ok_or(InvalidRecord("device"))?);
    }
    Ok(devices)
}

/// Decodes one device of a block, by its index in the block.
pub(in crate::journal) fn decode_device(
    block: &[u8],
    index_in_block: u32,
) -> Result<SentDevice, InvalidRecord> {
    let mut rest = block;
    for _ in 0..index_in_block {
        skip_device(&mut rest).ok_or(InvalidRecord("device"))?;
    }
    take_device(&mut rest).ok_or(InvalidRecord("device"))
}

fn take_device(rest: &mut &[u8]) -> Option<SentDevice> {
    let length = usize::from(rest.try_get_u16_le().ok()?);
    let reference = std::str::from_utf8(rest.split_off(..length)?).ok()?;
    let client_reference = ClientReference::parse(reference).ok()?;
    let count = rest.try_get_u8().ok()?;
    let ids = (0..count).map(|_| take_id(rest)).collect::<Option<_>>()?;
    Some(SentDevice { ids, client_reference })
}

fn skip_device(rest: &mut &[u8]) -> Option<()> {
    let length = usize::from(rest.try_get_u16_le().ok()?);
    rest.split_off(..length)?;
    for _ in 0..rest.try_get_u8().ok()? {
        let (_, _, length) = take_id_header(rest)?;
        rest.split_off(..length)?;
    }
    Some(())
}

/// Returns the kind, the number of characters, and the number of bytes of an identifier.
fn take_id_header(rest: &mut &[u8]) -> Option<(u8, usize, usize)> {
    let kind = rest.try_get_u8().ok()?;
    let length = usize::from(rest.try_get_u8().ok()?);
    let bytes = if kind & NOT_PACKED == 0 { length.div_ceil(2) } else { length };
    Some((kind, length, bytes))
}

fn take_id(rest: &mut &[u8]) -> Option<DeviceId> {
    let (kind, length, bytes) = take_id_header(rest)?;
    let bytes = rest.split_off(..bytes)?;
    let text = if kind & NOT_PACKED == 0 {
        let mut text = String::with_capacity(length);
        for byte in bytes {
            // The last byte of an odd number of digits has one digit.
            if text.len() + 1 < length {
                text.push(char::from(b'0' + (byte >> 4)));
            }
            text.push(char::from(b'0' + (byte & 0x0f)));
        }
        text
    } else {
        std::str::from_utf8(bytes).ok()?.to_owned()
    };
    let kind = IdentifierKind::ALL.get(usize::from(kind & !NOT_PACKED))?;
    DeviceId::new(*kind, text).ok()
}

#[cfg(test)]
mod tests;
