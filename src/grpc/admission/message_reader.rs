//! Reads the message of a call within limits, before tonic decodes it.
//!
//! tonic allocates the announced length of a message, and decodes it, before any handler runs.

use std::{io::Read, time::Duration};

use axum::{body::Body, extract::Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::grpc::{
    admission::byte_budget::{ByteBudget, ByteBudgetPool},
    error::{ApiError, Executed, reason::ErrorReason},
};

/// Maximum time for the header of a message, and for each part of it.
pub(in crate::grpc) const PART_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum size of a part in bytes.
const MIN_PART_BYTES: usize = 64 * 1024;
/// Maximum number of parts. The largest message may take two minutes.
const MAX_PARTS: usize = 24;
/// Size of the compression flag and the length of a message ("gRPC over HTTP2").
const HEADER_LEN: usize = 5;
/// Bytes that are decompressed before other tasks of the thread may run.
const INFLATE_CHUNK: usize = 64 * 1024;
/// Header that names the compression of messages.
const GRPC_ENCODING: &str = "grpc-encoding";

/// Limits of one message.
pub(in crate::grpc) struct MessageLimits<'a> {
    /// Maximum size in bytes, after decompression.
    pub(in crate::grpc) max_bytes: usize,
    /// Maximum time for each part.
    pub(in crate::grpc) part_timeout: Duration,
    /// Pool of the message's bytes. `None` if the number of calls limits them.
    pub(in crate::grpc) pool: Option<&'a ByteBudgetPool>,
}

/// A message that is being received.
struct MessageReader {
    body: Body,
    part_timeout: Duration,
    /// Bytes received.
    frame: BytesMut,
    /// Rest of the last HTTP/2 frame.
    pending: Bytes,
}

/// Reads the first message of a request, decompresses gzip, and drops later messages. Returns the request with
/// this message as its body, and the bytes of the message. An extension of the request holds their permit.
///
/// `executed` of an error is UNKNOWN if the call may be a retry: its key has not been read.
///
/// A message with an invalid header or an unknown compression is not read: tonic returns the error.
pub(in crate::grpc) async fn read_message(
    request: Request,
    limits: MessageLimits<'_>,
) -> Result<(Request, Bytes), ApiError> {
    let (mut head, body) = request.into_parts();
    let encoding = head.headers.get(GRPC_ENCODING);
    let is_gzip = encoding.is_some_and(|name| name == "gzip");
    let mut reader = MessageReader {
        body,
        part_timeout: limits.part_timeout,
        frame: BytesMut::new(),
        pending: Bytes::new(),
    };
    reader.read_to(HEADER_LEN, None).await?;
    let header = parse_header(&reader.frame);
    let Some((is_compressed, length)) = header.filter(|(compressed, _)| !compressed || is_gzip)
    else {
        let request = Request::from_parts(head, Body::from(reader.frame.freeze()));
        return Ok((request, Bytes::new()));
    };
    if length > limits.max_bytes {
        return Err(too_large(limits.max_bytes));
    }
    let mut budget = limits.pool.map(|pool| pool.budget(length, is_compressed));
    reader.read_to(HEADER_LEN + length, budget.as_mut()).await?;
    let mut frame = reader.frame;
    if is_compressed {
        frame = inflate(frame, limits.max_bytes, budget.as_mut()).await?;
        head.headers.remove(GRPC_ENCODING);
    }
    if let Some(permit) = budget.and_then(ByteBudget::into_permit) {
        head.extensions.insert(permit);
    }
    let frame = frame.freeze();
    let message = frame.slice(HEADER_LEN.min(frame.len())..);
    Ok((Request::from_parts(head, Body::from(frame)), message))
}

impl MessageReader {
    /// Receives bytes until the frame has `length`, or the body ends.
    async fn read_to(
        &mut self,
        length: usize,
        mut budget: Option<&mut ByteBudget>,
    ) -> Result<(), ApiError> {
        let part_bytes = MIN_PART_BYTES.max(length / MAX_PARTS);
        let mut part_end = self.frame.len() + part_bytes;
        let mut deadline = Instant::now() + self.part_timeout;
        while self.frame.len() < length {
            if self.pending.is_empty() {
                match timeout_at(deadline, self.body.frame()).await {
                    Ok(Some(Ok(frame))) => self.pending = frame.into_data().unwrap_or_default(),
                    Ok(Some(Err(_))) => return Err(body_error()),
                    Ok(None) => return Ok(()),
                    Err(_elapsed) => return Err(timed_out(self.part_timeout)),
                }
                continue;
            }
            let missing = length - self.frame.len();
            let chunk = self.pending.split_to(missing.min(self.pending.len()));
            let received = self.frame.len() + chunk.len();
            if let Some(budget) = budget.as_deref_mut() {
                budget.grow_to(received - HEADER_LEN)?;
            }
            // Doubles the capacity, but not beyond the length of the frame.
            if self.frame.capacity() < received {
                let capacity = (2 * self.frame.capacity()).max(received).min(length);
                self.frame.reserve(capacity - self.frame.len());
            }
            self.frame.put(chunk);
            if received >= part_end {
                part_end = received + part_bytes;
                deadline = Instant::now() + self.part_timeout;
            }
        }
        Ok(())
    }
}

/// Returns the compression flag and the length of a message. `None` if the header is incomplete or invalid.
fn parse_header(mut frame: &[u8]) -> Option<(bool, usize)> {
    let is_compressed = match frame.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let length = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    Some((is_compressed, length))
}

/// Decompresses the frame of a gzip message. `budget` holds its compressed bytes, and grows if the message is
/// larger.
async fn inflate(
    compressed: BytesMut,
    max_bytes: usize,
    mut budget: Option<&mut ByteBudget>,
) -> Result<BytesMut, ApiError> {
    let malformed = || {
        let message = "request message is not valid gzip";
        ApiError::new(ErrorReason::Malformed, message).with_executed(Executed::No)
    };
    let mut decoder = GzDecoder::new(compressed.get(HEADER_LEN..).unwrap_or_default());
    let mut chunk = vec![0; INFLATE_CHUNK];
    let mut frame = BytesMut::zeroed(HEADER_LEN);
    loop {
        let count = decoder.read(&mut chunk).map_err(|_| malformed())?;
        let bytes = chunk.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        let length = frame.len() - HEADER_LEN + bytes.len();
        if length > max_bytes {
            return Err(too_large(max_bytes));
        }
        if let Some(budget) = budget.as_deref_mut() {
            budget.grow_to(length)?;
        }
        frame.put_slice(bytes);
        tokio::task::yield_now().await;
    }
    // A message is one gzip member: the decoder would ignore another one.
    if !decoder.into_inner().is_empty() {
        return Err(malformed());
    }
    let length = u32::try_from(frame.len() - HEADER_LEN).unwrap_or(u32::MAX);
    if let Some(mut header) = frame.get_mut(1..HEADER_LEN) {
        header.put_u32(length);
    }
    Ok(frame)
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("request message has more than {max_bytes} bytes");
    ApiError::new(ErrorReason::MessageTooLarge, message).with_executed(Executed::No)
}

fn timed_out(part_timeout: Duration) -> ApiError {
    let message = format!(
        "request message timed out: 64 KiB or 1/{MAX_PARTS} of it, whichever is more, must arrive every {} s",
        part_timeout.as_secs()
    );
    ApiError::new(ErrorReason::Deadline, message).with_executed(Executed::Unknown)
}

fn body_error() -> ApiError {
    let message = "request body ended with an error before the message was complete";
    ApiError::new(ErrorReason::Malformed, message).with_executed(Executed::Unknown)
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

    async fn inflated(compressed: &[u8]) -> Result<BytesMut, ErrorReason> {
        let frame = [&[1; HEADER_LEN], compressed].concat();
        let inflated = inflate(frame.as_slice().into(), 1 << 20, None).await;
        inflated.map_err(|error| error.reason())
    }

    #[tokio::test]
    async fn a_gzip_message_is_decompressed_up_to_the_limit_if_it_is_valid_and_nothing_follows() {
        let message: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let compressed = gzip(&message);
        let frame = inflated(&compressed).await.unwrap();
        assert_eq!(frame.first(), Some(&0));
        assert_eq!(frame.get(1..5).unwrap(), 800_000_u32.to_be_bytes());
        assert_eq!(frame.get(5..).unwrap(), message);
        assert_eq!(inflated(&gzip(b"")).await.unwrap().as_ref(), [0; 5]);

        // Decompression stops at the limit, whatever size the message declares.
        let mut bomb = gzip(&vec![0; 16 * 1024 * 1024]);
        assert!(bomb.len() < 32 * 1024);
        assert_eq!(inflated(&bomb).await, Err(ErrorReason::MessageTooLarge));
        let end = bomb.len() - 4;
        bomb.get_mut(end..).unwrap().copy_from_slice(&[1, 0, 0, 0]);
        assert_eq!(inflated(&bomb).await, Err(ErrorReason::MessageTooLarge));

        let malformed = Err(ErrorReason::Malformed);
        let mut wrong_size = compressed.clone();
        let end = wrong_size.len() - 4;
        wrong_size
            .get_mut(end..)
            .unwrap()
            .copy_from_slice(&[1, 0, 0, 0]);
        assert_eq!(inflated(&wrong_size).await, malformed);
        assert_eq!(inflated(b"no gzip").await, malformed);
        let half = compressed.get(..compressed.len() / 2).unwrap();
        assert_eq!(inflated(half).await, malformed);
        let two = [compressed.clone(), compressed].concat();
        assert_eq!(inflated(&two).await, malformed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_of_a_message_has_a_deadline_and_bytes_below_a_part_do_not_extend_it() {
        use futures_util::{StreamExt, stream};
        let length = 10 * MIN_PART_BYTES;
        let read = |chunk: usize, pause: Duration| async move {
            let mut frame = vec![0; HEADER_LEN + length];
            frame[1..HEADER_LEN].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            let chunks: Vec<Vec<u8>> = frame.chunks(chunk).map(<[u8]>::to_vec).collect();
            let chunks = stream::iter(chunks).then(move |chunk| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, std::io::Error>(chunk)
            });
            let limits = MessageLimits {
                max_bytes: length,
                part_timeout: PART_TIMEOUT,
                pool: None,
            };
            let request = Request::new(Body::from_stream(chunks));
            let message = read_message(request, limits).await;
            message.map(|(_request, message)| message.len())
        };
        let in_time = read(MIN_PART_BYTES, PART_TIMEOUT - Duration::from_secs(1)).await;
        assert_eq!(in_time.unwrap(), length);
        let trickle = read(MIN_PART_BYTES / 10, Duration::from_secs(1)).await;
        assert_eq!(trickle.unwrap_err().reason(), ErrorReason::Deadline);
    }
}
