//! Decompresses gzip messages within the limits of an uncompressed message.

use std::io::Read;

use bytes::{BufMut, BytesMut};
use flate2::bufread::GzDecoder;

use crate::grpc::{
    admission::{byte_budget::ByteBudget, message_reader::HEADER_LEN},
    error::{ApiError, reason::ErrorReason},
};

/// Bytes that are decompressed before other tasks of the thread may run.
const CHUNK: usize = 64 * 1024;

/// The size that a gzip message says it has once it is decompressed: its last four bytes (RFC 1952).
pub(crate) fn declared_size(compressed: &[u8]) -> usize {
    let size = compressed.last_chunk().copied().map(u32::from_le_bytes);
    size.and_then(|size| size.try_into().ok()).unwrap_or(0)
}

/// Decompresses a gzip message, behind the header of an uncompressed gRPC message. It must have the
/// `size` that it says. `room` has `held` bytes for it already, and gets the rest as it grows.
pub(crate) async fn inflate(
    compressed: &[u8],
    size: usize,
    mut held: usize,
    mut byte_budget: Option<&mut ByteBudget>,
) -> Result<BytesMut, ApiError> {
    let malformed = || ApiError::new(ErrorReason::Malformed, "the message is not valid gzip");
    let mut decoder = GzDecoder::new(compressed);
    let mut chunk = vec![0; CHUNK];
    let mut message = BytesMut::from([0; HEADER_LEN].as_slice());
    loop {
        let count = decoder.read(&mut chunk).map_err(|_| malformed())?;
        let part = chunk.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let length = message.len() - HEADER_LEN + part.len();
        if length > size {
            return Err(malformed());
        }
        if let Some(byte_budget) = byte_budget.as_deref_mut()
            && length > held
        {
            byte_budget.acquire(length - held).await?;
            held = length;
        }
        message.put_slice(part);
        tokio::task::yield_now().await;
    }
    // One member is one message: what follows it would be dropped.
    if !decoder.into_inner().is_empty() {
        return Err(malformed());
    }
    let length = u32::try_from(message.len() - HEADER_LEN).unwrap_or(u32::MAX);
    let mut header = message.split_to(HEADER_LEN);
    header.clear();
    header.put_u8(0);
    header.put_u32(length);
    header.unsplit(message);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    async fn inflated(compressed: &[u8]) -> Option<BytesMut> {
        inflate(compressed, declared_size(compressed), 0, None)
            .await
            .ok()
    }

    #[tokio::test]
    async fn a_message_is_decompressed_if_it_has_the_size_that_it_says_and_nothing_follows() {
        let message: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let compressed = gzip(&message);
        let frame = inflated(&compressed).await.unwrap();
        assert_eq!(frame.first(), Some(&0));
        assert_eq!(frame.get(1..5).unwrap(), 800_000_u32.to_be_bytes());
        assert_eq!(frame.get(5..).unwrap(), message);
        assert_eq!(inflated(&gzip(b"")).await.unwrap().as_ref(), [0; 5]);

        // A message that grows beyond the size that it says is not decompressed to its end.
        let mut bomb = gzip(&vec![0; 16 * 1024 * 1024]);
        assert!(bomb.len() < 32 * 1024);
        let end = bomb.len() - 4;
        bomb.get_mut(end..).unwrap().copy_from_slice(&[1, 0, 0, 0]);
        assert!(inflated(&bomb).await.is_none());
        assert!(inflated(b"no gzip").await.is_none());
        let half = compressed.get(..compressed.len() / 2).unwrap();
        assert!(inflated(half).await.is_none());
        let two = [compressed.clone(), compressed].concat();
        assert!(inflated(&two).await.is_none());
    }
}
