//! Slow journals and slow senders.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

use super::{
    super::{response::Response, routes, server::CallbackListener},
    ESIM, PROFILE,
    harness::{GRACE, NoonClock, counted, open_config, serve},
};
use crate::{
    background::FileReloader,
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        Attribution, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim,
        CommitListener, DeviceFilter, DueChanges, DueForwards, Epoch, EventPage, EventQuery,
        EventStore, ForwardOutcome, ForwardQueue, ForwardQueueStats, Intent, Journal, JournalError,
        KeptRange, KeyValueStore, NewResult, QuarantineLimits, QuarantineStore,
        QuarantinedCallback, ReceivedCallback, Reservation, Result, ResultStore, StateCounts,
        Stored, UnmatchedResult, WatchTarget,
    },
    telemetry::Telemetry,
};

/// Stores a callback when the test releases it, and reports a fixed wait.
#[derive(Default)]
struct SlowJournal {
    wait: Duration,
    error: Option<JournalError>,
    store_called: Notify,
    release: Notify,
}

#[async_trait::async_trait]
impl ChangeStore for SlowJournal {
    async fn claim(&self, _: Intent) -> Result<Claim> {
        unreachable!()
    }
    async fn check_claim(&self, _: Intent) -> Result<Claim> {
        unreachable!()
    }
    async fn apply(&self, _: crate::journal::Step) -> Result<Change> {
        unreachable!()
    }
    async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        unreachable!()
    }
    async fn change(&self, _: ChangeSelector) -> Result<Option<Change>> {
        unreachable!()
    }
    async fn changes(&self, _: ChangeFilter) -> Result<ChangePage> {
        unreachable!()
    }
    async fn devices(&self, _: ChangeId, _: DeviceFilter) -> Result<Vec<ChangeDevice>> {
        unreachable!()
    }
    async fn due_changes(&self, _: ChangeState, _: Timestamp, _: Timestamp) -> Result<DueChanges> {
        unreachable!()
    }
    async fn interrupted(&self) -> Result<Vec<ChangeId>> {
        unreachable!()
    }
    async fn settle(&self, _: ChangeId, _: Timestamp) -> Result<Option<Change>> {
        unreachable!()
    }
    fn can_send(&self) -> bool {
        unreachable!()
    }
    fn state_counts(&self) -> StateCounts {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl ResultStore for SlowJournal {
    async fn store_callback(&self, _: ReceivedCallback) -> Result<Stored> {
        self.store_called.notify_one();
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        self.release.notified().await;
        Ok(Stored::New(NewResult { position: 1, change: None }))
    }
    fn expected_wait(&self) -> Duration {
        self.wait
    }
    async fn attribute(
        &self,
        _: RequestId,
        _: Option<Vec<Vec<ReportedId>>>,
        _: Option<u64>,
        _: Timestamp,
    ) -> Result<Attribution> {
        unreachable!()
    }
    async fn unattributed_requests(&self, _: ChangeId, _: usize) -> Result<Vec<RequestId>> {
        unreachable!()
    }
    async fn unmatched_results(
        &self,
        _: Timestamp,
        _: u64,
        _: usize,
    ) -> Result<Vec<UnmatchedResult>> {
        unreachable!()
    }
    async fn resolve_unmatched_result(
        &self,
        _: ChangeId,
        _: u64,
        _: Vec<ReportedId>,
        _: Timestamp,
    ) -> Result<bool> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl EventStore for SlowJournal {
    async fn events(&self, _: WatchTarget, _: EventQuery) -> Result<EventPage> {
        unreachable!()
    }
    fn add_commit_listener(&self, _: Arc<dyn CommitListener>) {}
}

#[async_trait::async_trait]
impl QuarantineStore for SlowJournal {
    async fn quarantine(&self, _: QuarantinedCallback, _: QuarantineLimits) -> Result<Option<u64>> {
        unreachable!()
    }
    async fn list_quarantined(&self, _: u64, _: usize) -> Result<Vec<(u64, QuarantinedCallback)>> {
        unreachable!()
    }
    async fn release_quarantined(&self, _: u64, _: ReceivedCallback) -> Result<Stored> {
        unreachable!()
    }
    async fn mark_quarantined_reviewed(&self, _: u64) -> Result<()> {
        unreachable!()
    }
    async fn drop_quarantined(&self, _: u64) -> Result<bool> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl ForwardQueue for SlowJournal {
    async fn due_forwards(&self, _: Timestamp, _: usize, _: usize) -> Result<DueForwards> {
        unreachable!()
    }
    async fn record_forward_outcomes(&self, _: Vec<(u64, ForwardOutcome)>) -> Result<()> {
        unreachable!()
    }
    async fn expire_forwards(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn reschedule_forwards(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    fn forward_queue_stats(&self) -> ForwardQueueStats {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl KeyValueStore for SlowJournal {
    async fn get_kv(&self, _: String) -> Result<Vec<u8>> {
        unreachable!()
    }
    async fn put_kv(&self, _: String, _: Vec<u8>) -> Result<()> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl Journal for SlowJournal {
    fn epoch(&self) -> Epoch {
        unreachable!()
    }
    fn origin(&self) -> &crate::journal::Origin {
        unreachable!()
    }
    fn info(&self) -> crate::journal::JournalInfo {
        unreachable!()
    }
    fn fingerprint(&self, _: &[u8]) -> [u8; 32] {
        [0; 32]
    }
    async fn kept_range(&self) -> Result<KeptRange> {
        unreachable!()
    }
    async fn trim(&self, _: Timestamp, _: u64) -> Result<bool> {
        unreachable!()
    }
    fn is_writable(&self) -> bool {
        true
    }
    async fn close(&self) {}
}

fn listener(journal: &Arc<SlowJournal>) -> (CallbackListener, Telemetry) {
    let journal = Arc::<SlowJournal>::clone(journal);
    let telemetry = Telemetry::metrics_only().unwrap();
    let instruments = telemetry.instruments();
    let listener = CallbackListener::new(
        &open_config(),
        journal,
        Arc::new(NoonClock),
        Arc::new(NoonClock),
        instruments,
        &mut FileReloader::default(),
    );
    (listener.unwrap(), telemetry)
}

async fn send(listener: &CallbackListener, body: Body) -> (Response, Duration) {
    let start = Instant::now();
    let (parts, body) = Request::post(PROFILE).body(body).unwrap().into_parts();
    let (routed, peer) = (routes::find(PROFILE), SocketAddr::from(([127, 0, 0, 1], 1)));
    let (response, _) = listener.state.handle(routed, &parts, body, peer, false).await;
    (response, start.elapsed())
}

async fn error(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

/// A body of these pieces that then ends, or does not.
fn body(pieces: Vec<Bytes>, ends: bool) -> Body {
    use futures_util::StreamExt as _;
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    if ends {
        Body::from_stream(pieces)
    } else {
        Body::from_stream(pieces.chain(futures_util::stream::pending()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_takes_too_long_is_answered_503_and_finished_all_the_same() {
    let journal = Arc::new(SlowJournal::default());
    let (listener, telemetry) = listener(&journal);
    let (response, took) = send(&listener, Body::from(ESIM)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(took, Duration::from_millis(3_250));
    assert_eq!(error(response).await, "store_timeout");
    assert_eq!(counted(&telemetry, "stored"), 0);

    journal.release.notify_one();
    listener.state.tasks.close();
    listener.state.tasks.wait().await;
    assert_eq!(counted(&telemetry, "stored"), 0, "a callback counts once");
    let stored = "thingspace_gateway_callbacks_stored_after_timeout_total";
    assert_eq!(telemetry.sample(stored), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_hangs_up_does_not_stop_the_append() {
    let journal = Arc::new(SlowJournal::default());
    let (listener, telemetry) = listener(&journal);
    tokio::select! {
        _ = send(&listener, Body::from(ESIM)) => unreachable!(),
        () = journal.store_called.notified() => {}
    }
    journal.release.notify_one();
    listener.state.tasks.close();
    listener.state.tasks.wait().await;
    assert_eq!(counted(&telemetry, "stored"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_cannot_be_stored_in_time_is_refused_before_its_body_is_read() {
    for (journal, retry_after, reason) in [
        (
            SlowJournal { wait: Duration::from_millis(3_501), ..SlowJournal::default() },
            "4",
            "overloaded",
        ),
        (
            SlowJournal { wait: Duration::from_secs(3_600), ..SlowJournal::default() },
            "30",
            "overloaded",
        ),
        (
            SlowJournal { error: Some(JournalError::Overloaded), ..SlowJournal::default() },
            "1",
            "overloaded",
        ),
        (
            SlowJournal {
                error: Some(JournalError::Unavailable("disk full".to_owned())),
                ..SlowJournal::default()
            },
            "1",
            "unavailable",
        ),
    ] {
        let (listener, _) = listener(&Arc::new(journal));
        let (response, took) = send(&listener, Body::from(ESIM)).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], retry_after);
        assert_eq!(error(response).await, reason);
        assert_eq!(took, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_or_endless_body_is_refused_and_its_connection_closed() {
    let (listener, _) = listener(&Arc::new(SlowJournal::default()));
    let (response, took) = send(&listener, body(vec![Bytes::from_static(b"{")], false)).await;
    assert_eq!(response.status(), 408);
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(took, Duration::from_millis(3_250));

    let pieces = vec![Bytes::from(vec![b' '; 64 * 1024]); 65];
    let (response, _) = send(&listener, body(pieces.clone(), false)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.headers()["connection"], "close");

    let (response, _) = send(&listener, body(pieces[..64].to_vec(), true)).await;
    assert_eq!(response.status(), 413);
    assert!(!response.headers().contains_key("connection"));
}

#[tokio::test]
async fn a_request_in_progress_is_answered_before_the_listener_ends() {
    let journal = Arc::new(SlowJournal::default());
    let (address, stop, served) = serve(listener(&journal).0).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {PROFILE} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{ESIM}",
        ESIM.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    journal.store_called.notified().await;
    stop.cancel();
    journal.release.notify_one();

    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // An idle connection does not use the grace up.
    tokio::time::timeout(GRACE / 2, served).await.unwrap().unwrap();
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}
