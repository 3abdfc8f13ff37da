//! Decompresses gzip messages within the limits of an uncompressed message.

use std::io::Read;

use bytes::{BufMut, BytesMut};
use flate2::bufread::GzDecoder;

use super::{reason::Reason, room::Room, status::Failure};

/// Bytes that are decompressed before other tasks of the thread may run.
const CHUNK: usize = 64 * 1024;

/// Decompresses a gzip message of at most `max` bytes, behind the header of an uncompressed gRPC
/// message. Its bytes take room like those of a message that arrives uncompressed.
pub(super) async fn inflate(
    compressed: &[u8],
    max: usize,
    mut room: Option<&mut Room>,
) -> Result<BytesMut, Failure> {
    let mut decoder = GzDecoder::new(compressed);
    let mut chunk = vec![0; CHUNK];
    let mut message = BytesMut::from([0; super::receive::HEADER].as_slice());
    loop {
        let count = decoder
            .read(&mut chunk)
            .map_err(|_| Failure::new(Reason::Malformed, "the message is not valid gzip"))?;
        let part = chunk.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        if let Some(room) = room.as_deref_mut() {
            room.grow(part.len()).await?;
        }
        message.put_slice(part);
        if message.len() > max + super::receive::HEADER {
            let why = format!("the decompressed message has more than {max} bytes");
            return Err(Failure::new(Reason::MessageTooLarge, why));
        }
        tokio::task::yield_now().await;
    }
    let length = message.len() - super::receive::HEADER;
    let mut header = message.split_to(super::receive::HEADER);
    header.clear();
    header.put_u8(0);
    header.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
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

    #[tokio::test]
    async fn a_message_is_decompressed_up_to_the_limit_and_no_further() {
        let message: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let frame = inflate(&gzip(&message), message.len(), None).await.unwrap();
        assert_eq!(frame.first(), Some(&0));
        assert_eq!(frame.get(1..5).unwrap(), 800_000_u32.to_be_bytes());
        assert_eq!(frame.get(5..).unwrap(), message);

        let zeros = gzip(&vec![0; 16 * 1024 * 1024]);
        assert!(zeros.len() < 32 * 1024, "a bomb");
        assert!(inflate(&zeros, 1024 * 1024, None).await.is_err());
        assert!(inflate(b"no gzip", 1024, None).await.is_err());
        let cut = gzip(&message);
        assert!(
            inflate(cut.get(..cut.len() / 2).unwrap(), 1_000_000, None)
                .await
                .is_err()
        );
        assert_eq!(
            inflate(&gzip(b""), 10, None).await.unwrap().as_ref(),
            [0; 5]
        );
    }
}
