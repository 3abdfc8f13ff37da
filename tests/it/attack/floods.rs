//! Floods of HTTP/2 frames. The callback listener, which speaks HTTP/1.1 only, rejects the preface.

use super::{
    frames::{
        CHECK, CONTINUATION, DEFAULT_WINDOW, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM,
        SETTINGS, call_headers, frame, preface, streams,
    },
    *,
};
use crate::support::number;

const CONNECTIONS: usize = 8;
/// Frames in one write.
const BATCH: usize = 100;

/// Sends batches of frames on some connections to each port. An ended connection is opened again.
async fn flood(name: &str, batch: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static) {
    let _alone = alone().await;
    let batches = number("TSGW_ATTACK_FRAMES", 10_000) / BATCH;
    for port in Port::ALL {
        let mut target = Target::start().await;
        let mut attack = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (address, batch) = (target.address(port), batch.clone());
            attack.spawn(async move {
                let mut open: Option<TcpStream> = None;
                let mut sent = 0;
                for _ in 0..batches {
                    if open.is_none() {
                        open = connect(address).await;
                        sent = 0;
                        if let Some(stream) = &mut open {
                            write(stream, &preface(DEFAULT_WINDOW)).await;
                        }
                    }
                    let Some(stream) = &mut open else { continue };
                    if !write(stream, &batch(sent)).await {
                        open = None;
                    }
                    sent += 1;
                }
            });
        }
        target.assert_served_during(attack).await;
        target.assert_memory(format_args!("{name}, {port:?}"), 48);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_do_not_keep_normal_clients_out() {
    flood("rapid reset", |batch| {
        let streams = streams().skip(batch * BATCH).take(BATCH);
        let block = call_headers(CHECK);
        let reset = |stream| {
            let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            frames
        };
        streams.flat_map(reset).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn continuation_frames_do_not_keep_normal_clients_out() {
    flood("CONTINUATION flood", |batch| {
        // A header block that never ends.
        let first = (batch == 0).then(|| frame(HEADERS, END_STREAM, 1, &call_headers(CHECK)));
        let literal = [&[0, 1, b'a', 100][..], &[b'x'; 100]].concat();
        let rest = frame(CONTINUATION, 0, 1, &literal.repeat(10)).repeat(BATCH);
        first.into_iter().flatten().chain(rest).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_frames_do_not_keep_normal_clients_out() {
    flood("SETTINGS flood", |_| frame(SETTINGS, 0, 0, &[]).repeat(BATCH)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_frames_do_not_keep_normal_clients_out() {
    flood("PING flood", |_| frame(PING, 0, 0, &[0; 8]).repeat(BATCH)).await;
}
