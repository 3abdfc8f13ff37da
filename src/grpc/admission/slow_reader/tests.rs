use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;

#[tokio::test(start_paused = true)]
async fn only_a_client_that_stops_reading_a_response_loses_its_connection() {
    let (slow_reader, permits) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
    let respond = |text: &'static str| {
        let response = Response::new(Body::from(text));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        guard_response(response, permit, Some(SlowReader(slow_reader.clone())))
    };
    let read = respond("read").into_body().collect().await.unwrap();
    assert_eq!(read.to_bytes(), "read");
    sleep(2 * READ_TIMEOUT).await;
    assert!(!slow_reader.is_cancelled());
    let unread = respond("unread");
    slow_reader.cancelled().await;
    assert_eq!(permits.available_permits(), 0);
    drop(unread);
    assert_eq!(permits.available_permits(), 1);
}
