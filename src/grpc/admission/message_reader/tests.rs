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
