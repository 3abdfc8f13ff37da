//! The input of the idempotency fingerprint.

use aws_lc_rs::digest::{Context, SHA256};

/// The version of the input. A stored fingerprint is only equal to one of the same version.
const VERSION: &[u8] = b"thingspace.gateway/content/1";
/// Bytes that are hashed at a time: a hash of single texts would take longer.
const CHUNK: usize = 4 * 1024;

/// Hashes the texts of a request.
///
/// Every text is preceded by its length, and every device by the number of its identifiers, so that different
/// requests never have the same bytes.
pub struct FingerprintWriter {
    hash: Context,
    chunk: Vec<u8>,
}

impl FingerprintWriter {
    pub(super) fn new() -> Self {
        let mut chunk = Vec::with_capacity(2 * CHUNK);
        chunk.extend_from_slice(VERSION);
        Self { hash: Context::new(&SHA256), chunk }
    }

    /// Adds a text.
    pub(super) fn add(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        self.add_number(text.len());
        self.chunk.extend_from_slice(text);
        if self.chunk.len() >= CHUNK {
            self.hash.update(&self.chunk);
            self.chunk.clear();
        }
    }

    pub(super) fn begin_device(&mut self, identifiers: usize) {
        self.add_number(identifiers);
    }

    /// Adds a number: one byte for a small one.
    fn add_number(&mut self, number: usize) {
        match u8::try_from(number) {
            Ok(byte) if byte < u8::MAX => self.chunk.push(byte),
            _ => {
                self.chunk.push(u8::MAX);
                self.chunk.extend_from_slice(&(number as u64).to_be_bytes());
            }
        }
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        self.hash.update(&self.chunk);
        let mut digest = [0; 32];
        digest.copy_from_slice(self.hash.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests;
