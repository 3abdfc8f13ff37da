//! HTTP/2 frames, written by hand (RFC 9113).

pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const DEFAULT_WINDOW: u32 = 65_535;
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Returns a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns the preface of a client with this window for each stream, and for the connection if it is larger than the
/// default.
pub(super) fn preface(window: u32) -> Vec<u8> {
    let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    settings.extend(window.to_be_bytes());
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(frame(SETTINGS, 0, 0, &settings));
    if let Some(more @ 1..) = window.checked_sub(DEFAULT_WINDOW) {
        preface.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
    }
    preface
}

/// Returns the header block of a gRPC call: literals without indexing and without Huffman code (RFC 7541).
pub(super) fn call_headers(path: &str) -> Vec<u8> {
    // `:method: POST`, `:scheme: http`, and literals of `:path` and `:authority`.
    let mut block = vec![0x83, 0x86];
    for (index, value) in [(4, path), (1, "localhost")] {
        block.push(index);
        push_text(&mut block, value);
    }
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.push(0);
        push_text(&mut block, name);
        push_text(&mut block, value);
    }
    block
}

fn push_text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).expect("a short text"));
    block.extend(text.as_bytes());
}

/// Returns a gRPC call with this message.
pub(super) fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let mut call = frame(HEADERS, END_HEADERS, stream, &call_headers(path));
    let mut data = vec![0];
    data.extend(u32::try_from(message.len()).expect("a small message").to_be_bytes());
    data.extend(message);
    call.extend(frame(DATA, END_STREAM, stream, &data));
    call
}

/// The stream identifiers of a client.
pub(super) fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}
