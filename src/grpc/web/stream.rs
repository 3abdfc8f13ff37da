//! Streaming calls: envelopes of the Connect protocol, and JSON lines.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use serde_json::{Value, json};
use tonic::Code;

use crate::grpc::{
    admission::message_reader::{Framing, MessageForm},
    json::{JsonMethod, JsonSchema},
    web::{
        connect::{GRPC_HEADERS, code, error_json, error_response, metadata},
        has_status, into_grpc,
        protocol::Encoding,
        text,
    },
};

/// Size of the header of a message in gRPC, and of an envelope of the Connect protocol.
const HEADER_LEN: usize = 5;
/// Flag of the envelope that ends a stream.
const END_STREAM: u8 = 2;
/// Size at which a chunk of converted messages is sent.
const CHUNK_BYTES: usize = 16 * 1024;

/// Serves a streaming call of the Connect protocol. Its envelopes are the messages of gRPC.
pub(super) async fn call<F: Future<Output = Response>>(
    schema: &JsonSchema,
    request: Request,
    encoding: Encoding,
    call: impl FnOnce(Request) -> F,
) -> Response {
    let method = schema.method(request.uri().path()).cloned();
    if method.as_ref().is_some_and(|method| !method.is_stream) {
        const TEXT: &str =
            "the content-type is one of a stream, and the method returns none: see docs/http.md\n";
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT);
    }
    let json = method.clone().filter(|_| encoding == Encoding::Json);
    let mut request = into_grpc(request, MessageForm { framing: Framing::Prefix, json });
    let headers = request.headers_mut();
    if let Some(compression) = headers.remove("connect-content-encoding") {
        headers.insert("grpc-encoding", compression);
    }
    let response = call(request).await;
    let (content_type, method) = match encoding {
        Encoding::Json => ("application/connect+json", method),
        Encoding::Proto => ("application/connect+proto", None),
    };
    convert(schema, response, content_type, Format::Envelopes(method))
}

/// Converts a stream to JSON lines: one message in a line. The last line is an object with the key `error` if the stream
/// ended with an error.
pub(super) fn json_lines(
    schema: &JsonSchema,
    method: &Arc<JsonMethod>,
    response: Response,
) -> Response {
    if has_status(response.headers()) {
        return error_response(schema, response.headers());
    }
    convert(schema, response, "application/x-ndjson", Format::JsonLines(Arc::clone(method)))
}

fn convert(
    schema: &JsonSchema,
    response: Response,
    content_type: &'static str,
    format: Format,
) -> Response {
    let (mut head, body) = response.into_parts();
    let status = has_status(&head.headers).then(|| std::mem::take(&mut head.headers));
    for name in GRPC_HEADERS {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A reverse proxy must not wait for more of the stream.
    head.headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let mut stream = MessageStream {
        schema: schema.clone(),
        body,
        received: BytesMut::new(),
        format,
        has_ended: false,
    };
    let body = match status {
        Some(status) => Body::from(stream.end(&status)),
        None => Body::new(stream),
    };
    Response::from_parts(head, body)
}

/// The form of the messages of a stream.
enum Format {
    /// Envelopes. Messages are converted to JSON if a method is given.
    Envelopes(Option<Arc<JsonMethod>>),
    JsonLines(Arc<JsonMethod>),
}

/// The body of a stream, converted message by message.
struct MessageStream {
    schema: JsonSchema,
    body: Body,
    received: BytesMut,
    format: Format,
    has_ended: bool,
}

impl MessageStream {
    /// Converts complete messages, up to a chunk. Empty if there is none. An error ends the stream.
    fn convert_messages(&mut self) -> Bytes {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES
            && let Some(message) = split_message(&mut self.received)
        {
            let converted = match &self.format {
                Format::Envelopes(None) => {
                    put_envelope(&mut chunk, 0, &message);
                    Ok(())
                }
                Format::Envelopes(Some(method)) => {
                    let mut json = Vec::new();
                    let encoded = method.encode_response(&message, &mut json);
                    encoded.map(|()| put_envelope(&mut chunk, 0, &json))
                }
                Format::JsonLines(method) => {
                    method.encode_response(&message, &mut chunk).map(|()| chunk.push(b'\n'))
                }
            };
            if let Err(error) = converted {
                chunk.extend_from_slice(&self.end(error.into_response().headers()));
                break;
            }
        }
        chunk.into()
    }

    /// Returns the end of the stream with this status.
    fn end(&mut self, status: &HeaderMap) -> Bytes {
        self.has_ended = true;
        let error = (code(status) != Code::Ok).then(|| error_json(&self.schema, status));
        let mut end = Vec::new();
        match (&self.format, error) {
            (Format::Envelopes(_), error) => {
                let mut names = BTreeMap::<_, Vec<_>>::new();
                for (name, value) in metadata(status) {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    names.entry(name.as_str()).or_default().push(value);
                }
                let mut content = json!({ "metadata": names });
                if let (Some(error), Value::Object(content)) = (error, &mut content) {
                    content.insert("error".to_owned(), error);
                }
                put_envelope(&mut end, END_STREAM, content.to_string().as_bytes());
            }
            (Format::JsonLines(_), Some(error)) => {
                end.extend_from_slice(json!({ "error": error }).to_string().as_bytes());
                end.push(b'\n');
            }
            (Format::JsonLines(_), None) => {}
        }
        end.into()
    }
}

impl http_body::Body for MessageStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let chunk = if self.has_ended { Bytes::new() } else { self.convert_messages() };
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            let trailers = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.received.put(data);
                        continue;
                    }
                    Err(frame) => frame.into_trailers().unwrap_or_default(),
                },
                // A stream without a status.
                Some(Err(_)) | None => HeaderMap::new(),
            };
            let end = self.end(&trailers);
            return Poll::Ready(if end.is_empty() { None } else { Some(Ok(Frame::data(end))) });
        }
    }
}

/// Removes the first message of gRPC, without its header. `None` if it is incomplete.
pub(super) fn split_message(received: &mut BytesMut) -> Option<Bytes> {
    let mut header = received.get(..HEADER_LEN)?;
    // The gateway compresses no response.
    header.advance(1);
    let length = HEADER_LEN.checked_add(usize::try_from(header.get_u32()).ok()?)?;
    if received.len() < length {
        return None;
    }
    let mut message = received.split_to(length);
    message.advance(HEADER_LEN);
    Some(message.freeze())
}

fn put_envelope(chunk: &mut Vec<u8>, flags: u8, content: &[u8]) {
    chunk.put_u8(flags);
    chunk.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    chunk.put_slice(content);
}
