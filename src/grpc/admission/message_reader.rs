//! Reads the message of a call within limits, before tonic decodes it.
//!
//! tonic allocates the announced length of a message, and decodes it, before any handler runs.

use std::{io::Read, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::grpc::{
    admission::byte_budget::{ByteBudget, CallerBytes},
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
    /// Bytes that the message may use. `None` if the number of calls limits them.
    pub(in crate::grpc) bytes: Option<CallerBytes<'a>>,
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
/// this message as its body, and the bytes of the message. Its [`ByteBudget`] becomes an extension of the request.
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
    let mut budget = limits.bytes.map(|bytes| bytes.budget(length, is_compressed)).transpose()?;
    reader.read_to(HEADER_LEN + length, budget.as_mut()).await?;
    let mut frame = reader.frame;
    if is_compressed {
        frame = inflate(frame, limits.max_bytes, budget.as_mut()).await?;
        head.headers.remove(GRPC_ENCODING);
    }
    if let Some(budget) = budget {
        head.extensions.insert(Arc::new(budget));
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
                    Ok(Some(Err(_))) => {
                        let message =
                            "request body ended with an error before the message was complete";
                        let error = ApiError::new(ErrorReason::Malformed, message);
                        return Err(error.with_executed(Executed::Unknown));
                    }
                    Ok(None) => return Ok(()),
                    Err(_elapsed) => {
                        let message = format!(
                            "request message timed out: 64 KiB or 1/{MAX_PARTS} of it, whichever is more, must arrive every {} s",
                            self.part_timeout.as_secs()
                        );
                        let error = ApiError::new(ErrorReason::Deadline, message);
                        return Err(error.with_executed(Executed::Unknown));
                    }
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

#[cfg(test)]
mod tests;
