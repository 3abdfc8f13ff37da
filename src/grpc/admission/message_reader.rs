//! Reads the message of a call within limits, before tonic decodes it, and converts JSON.
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
    json::{JsonMethod, run_conversion},
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

/// The form of the message of a call that is not gRPC. Extension of its request.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct MessageForm {
    pub(in crate::grpc) framing: Framing,
    /// Set if the message is JSON.
    pub(in crate::grpc) json: Option<Arc<JsonMethod>>,
}

/// How a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum Framing {
    /// By its length, as in gRPC.
    Prefix,
    /// The body is the message.
    Body { is_gzip: bool },
}

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
    max_bytes: usize,
    part_timeout: Duration,
    /// Bytes received, after the prefix of the message.
    frame: BytesMut,
    /// Rest of the last HTTP/2 frame.
    pending: Bytes,
}

/// Reads the first message of a request, decompresses gzip, converts JSON, and drops later messages. Returns the request
/// with this message as its body, and the bytes of the message. Its [`ByteBudget`] becomes an extension of the request.
///
/// `executed` of an error is UNKNOWN if the call may be a retry: its key has not been read.
///
/// A message with an invalid header or an unknown compression is not read: tonic returns the error.
pub(in crate::grpc) async fn read_message(
    request: Request,
    limits: MessageLimits<'_>,
) -> Result<(Request, Bytes), ApiError> {
    let (mut head, body) = request.into_parts();
    let form: Option<MessageForm> = head.extensions.remove();
    let framing = form.as_ref().map_or(Framing::Prefix, |form| form.framing);
    let mut reader = MessageReader {
        body,
        max_bytes: limits.max_bytes,
        part_timeout: limits.part_timeout,
        frame: BytesMut::new(),
        pending: Bytes::new(),
    };
    let read = match framing {
        Framing::Prefix => {
            let is_gzip = head.headers.get(GRPC_ENCODING).is_some_and(|name| name == "gzip");
            reader.read_prefixed(is_gzip, limits.bytes).await?
        }
        Framing::Body { is_gzip } => Some(reader.read_body(is_gzip, limits.bytes).await?),
    };
    let Some(ReadMessage { is_compressed, is_complete, mut budget }) = read else {
        let request = Request::from_parts(head, Body::from(reader.frame.freeze()));
        return Ok((request, Bytes::new()));
    };
    let mut frame = reader.frame;
    if is_compressed {
        frame = inflate(frame, limits.max_bytes, budget.as_mut()).await?;
        head.headers.remove(GRPC_ENCODING);
    }
    if let Some(budget) = budget {
        head.extensions.insert(Arc::new(budget));
    }
    let frame = match form.and_then(|form| form.json) {
        // tonic returns the error of an incomplete message.
        Some(method) if is_complete => convert(method, frame).await?,
        _ => frame.freeze(),
    };
    let message = frame.slice(HEADER_LEN.min(frame.len())..);
    Ok((Request::from_parts(head, Body::from(frame)), message))
}

/// A message that a [`MessageReader`] has received.
struct ReadMessage {
    is_compressed: bool,
    /// False if the body has ended too early.
    is_complete: bool,
    budget: Option<ByteBudget>,
}

impl MessageReader {
    /// Receives a message after its length. `None` if its header is incomplete or invalid.
    async fn read_prefixed(
        &mut self,
        is_gzip: bool,
        bytes: Option<CallerBytes<'_>>,
    ) -> Result<Option<ReadMessage>, ApiError> {
        self.read_to(HEADER_LEN, None).await?;
        let header = parse_header(&self.frame).filter(|(compressed, _)| !compressed || is_gzip);
        let Some((is_compressed, length)) = header else {
            return Ok(None);
        };
        if length > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        let mut budget = bytes.map(|bytes| bytes.budget(length, is_compressed)).transpose()?;
        self.read_to(HEADER_LEN + length, budget.as_mut()).await?;
        let is_complete = self.frame.len() == HEADER_LEN + length;
        Ok(Some(ReadMessage { is_compressed, is_complete, budget }))
    }

    /// Receives a body that is a message. If its length is not announced, it counts as a large one.
    async fn read_body(
        &mut self,
        is_compressed: bool,
        bytes: Option<CallerBytes<'_>>,
    ) -> Result<ReadMessage, ApiError> {
        let announced = http_body::Body::size_hint(&self.body).exact();
        let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let length = announced.unwrap_or(self.max_bytes);
        if length > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        let mut budget = bytes.map(|bytes| bytes.budget(length, is_compressed)).transpose()?;
        self.frame = BytesMut::zeroed(HEADER_LEN);
        // One byte more shows that a body is too large.
        let end = HEADER_LEN + announced.unwrap_or(self.max_bytes + 1);
        self.read_to(end, budget.as_mut()).await?;
        if self.frame.len() > HEADER_LEN + self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        put_length(&mut self.frame);
        Ok(ReadMessage { is_compressed, is_complete: true, budget })
    }

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
                budget.grow_to((received - HEADER_LEN).min(self.max_bytes))?;
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
    put_length(&mut frame);
    Ok(frame)
}

/// Writes the length of the message of a frame.
fn put_length(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - HEADER_LEN).unwrap_or(u32::MAX);
    if let Some(mut header) = frame.get_mut(1..HEADER_LEN) {
        header.put_u32(length);
    }
}

/// Converts the JSON text of a frame.
async fn convert(method: Arc<JsonMethod>, json: BytesMut) -> Result<Bytes, ApiError> {
    run_conversion(json.len(), move || {
        let mut frame = vec![0; HEADER_LEN];
        method.decode_request(json.get(HEADER_LEN..).unwrap_or_default(), &mut frame)?;
        put_length(&mut frame);
        Ok(frame.into())
    })
    .await
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("request message has more than {max_bytes} bytes");
    ApiError::new(ErrorReason::MessageTooLarge, message).with_executed(Executed::No)
}

#[cfg(test)]
mod tests;
