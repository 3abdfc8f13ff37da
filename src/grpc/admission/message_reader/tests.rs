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
    inflated.map_err(|error| error.reason)
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
    wrong_size.get_mut(end..).unwrap().copy_from_slice(&[1, 0, 0, 0]);
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
        let limits = MessageLimits { max_bytes: length, part_timeout: PART_TIMEOUT, bytes: None };
        let request = Request::new(Body::from_stream(chunks));
        let message = read_message(request, limits).await;
        message.map(|(_request, message)| message.len())
    };
    let in_time = read(MIN_PART_BYTES, PART_TIMEOUT - Duration::from_secs(1)).await;
    assert_eq!(in_time.unwrap(), length);
    let trickle = read(MIN_PART_BYTES / 10, Duration::from_secs(1)).await;
    assert_eq!(trickle.unwrap_err().reason, ErrorReason::Deadline);
}

/// Reads the message of a request of another protocol, and returns its frame. Its body has a length if it is one chunk.
async fn read_form(chunks: &[&[u8]], form: MessageForm) -> Result<Bytes, ErrorReason> {
    let body = match chunks {
        [body] => Body::from(body.to_vec()),
        chunks => {
            let chunks = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
            Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()))
        }
    };
    let mut request = Request::new(body);
    request.extensions_mut().insert(form);
    let limits = MessageLimits { max_bytes: 40, part_timeout: PART_TIMEOUT, bytes: None };
    let read = read_message(request, limits).await;
    let (request, message) = read.map_err(|error| error.reason)?;
    let frame = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(frame.slice(HEADER_LEN..), message);
    Ok(frame)
}

fn frame_of(message: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat()
}

#[tokio::test]
async fn a_body_is_a_message_up_to_the_limit_with_and_without_a_length() {
    let form = |is_gzip| MessageForm { framing: Framing::Body { is_gzip }, json: None };
    for (size, is_accepted) in [(0, true), (40, true), (41, false)] {
        let body = vec![7; size];
        let (first, last) = body.split_at(size / 2);
        for chunks in [&[&*body][..], &[first, last]] {
            let read = read_form(chunks, form(false)).await;
            match is_accepted {
                true => assert_eq!(read.unwrap(), frame_of(&body)),
                false => assert_eq!(read, Err(ErrorReason::MessageTooLarge)),
            }
        }
    }
    let compressed = gzip(&[7; 40]);
    assert_eq!(read_form(&[&compressed], form(true)).await.unwrap(), frame_of(&[7; 40]));
    let bomb = gzip(&[7; 41]);
    assert_eq!(read_form(&[&bomb], form(true)).await, Err(ErrorReason::MessageTooLarge));
    assert_eq!(read_form(&[b"no gzip"], form(true)).await, Err(ErrorReason::Malformed));
}

#[tokio::test]
async fn json_is_converted_if_it_is_complete() {
    let schema = crate::grpc::json::JsonSchema::load().unwrap();
    let method = schema.method("/thingspace.gateway.v1.GatewayService/GetChange").unwrap();
    let form = |framing| MessageForm { framing, json: Some(Arc::clone(method)) };
    let body = form(Framing::Body { is_gzip: false });
    let expected = frame_of(b"\x0a\x01c");
    assert_eq!(read_form(&[b"{\"changeId\":\"c\"}"], body.clone()).await.unwrap(), expected);
    assert_eq!(read_form(&[b"{\"changeId\":"], body.clone()).await, Err(ErrorReason::Malformed));
    assert_eq!(read_form(&[b""], body).await, Err(ErrorReason::Malformed));
    let prefixed = form(Framing::Prefix);
    let envelope = frame_of(b"{\"changeId\":\"c\"}");
    assert_eq!(read_form(&[&envelope], prefixed.clone()).await.unwrap(), expected);
    // The rest of the message is missing, although its text seems complete.
    let mut truncated = envelope;
    truncated[4] += 1;
    assert_eq!(read_form(&[&truncated], prefixed).await.unwrap(), truncated);
}
