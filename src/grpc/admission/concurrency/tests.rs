use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_requests_of_a_reflection_stream_end_though_its_client_keeps_it_open() {
    let begin = Instant::now();
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"request"))]);
    let requests = end_reflection(Body::from_stream(first.chain(stream::pending())));
    assert_eq!(requests.collect().await.unwrap().to_bytes(), "request");
    assert!(begin.elapsed() >= MAX_REFLECTION_TIME);
}
