//! Slow journals and slow senders.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    super::{response::Response, routes, server::CallbackListener, state::RESPONSE_TIMEOUT},
    ESIM, PROFILE,
    harness::{GRACE, NoonClock, counted, open_config, serve},
};
use crate::{
    background::FileReloader,
    connections::{ConnectionTable, TableLimits},
    journal::{
        JournalError, Origin,
        stub_journal::{StoreStep, StubJournal},
    },
    spool::{Spool, SpoolOptions},
    telemetry::{Instruments, Port, Telemetry},
};

fn listener(journal: &Arc<StubJournal>) -> (CallbackListener, Telemetry) {
    listener_with_spool(journal, None)
}

fn listener_with_spool(
    journal: &Arc<StubJournal>,
    spool: Option<Arc<Spool>>,
) -> (CallbackListener, Telemetry) {
    let journal = Arc::<StubJournal>::clone(journal);
    let telemetry = Telemetry::metrics_only().unwrap();
    let instruments = telemetry.instruments();
    let listener = CallbackListener::new(
        &open_config(),
        journal,
        spool,
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
    let limits = TableLimits { connections: 1, requests: 1, unread_responses: 1 };
    let table = ConnectionTable::new(Port::Callbacks, limits, Instruments::noop());
    let connection = table.admit().await;
    let mut guard = connection.state().begin_unprotected_request();
    let handled = listener.state.handle(routed, &parts, body, peer, false, &mut guard);
    let (response, _) = handled.await;
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
    let journal = Arc::new(StubJournal::default());
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
    let journal = Arc::new(StubJournal::default());
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
            StubJournal { wait: Duration::from_millis(3_501), ..StubJournal::default() },
            "4",
            "overloaded",
        ),
        (
            StubJournal { wait: Duration::from_secs(3_600), ..StubJournal::default() },
            "30",
            "overloaded",
        ),
        (StubJournal::with_step(StoreStep::Fail(JournalError::Overloaded)), "1", "overloaded"),
        (StubJournal::with_step(StoreStep::Fail(StubJournal::unavailable())), "1", "unavailable"),
    ] {
        let (listener, _) = listener(&Arc::new(journal));
        let (response, took) = send(&listener, Body::from(ESIM)).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], retry_after);
        assert_eq!(error(response).await, reason);
        assert_eq!(took, Duration::ZERO);
    }
}

/// A listener with a spool, and a clock that only the test advances: a paused clock would advance while the
/// spool writes.
struct SpoolHarness {
    listener: CallbackListener,
    telemetry: Telemetry,
    journal: Arc<StubJournal>,
    spool: Arc<Spool>,
    _directory: TempDir,
    _stopped_clock: std::sync::mpsc::Sender<()>,
}

impl SpoolHarness {
    fn start(journal: StubJournal, max_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SpoolOptions {
            dir: directory.path().to_owned(),
            max_bytes,
            origin: Origin::sandbox(),
            allow_network_filesystem: false,
        };
        let journal = Arc::new(journal);
        let spool = Spool::open(&options, Arc::<StubJournal>::clone(&journal)).unwrap();
        let (listener, telemetry) = listener_with_spool(&journal, Some(Arc::clone(&spool)));
        let (stopped_clock, until_dropped) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || until_dropped.recv());
        let (_directory, _stopped_clock) = (directory, stopped_clock);
        Self { listener, telemetry, journal, spool, _directory, _stopped_clock }
    }
}

async fn stored(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body["stored"].as_str().unwrap().to_owned()
}

const MIB: u64 = 1 << 20;

#[tokio::test(start_paused = true)]
async fn with_a_spool_a_callback_is_answered_200_while_the_journal_is_away_or_overloaded() {
    for journal in [
        StubJournal::with_step(StoreStep::Fail(StubJournal::unavailable())),
        StubJournal::with_step(StoreStep::Fail(JournalError::Overloaded)),
        StubJournal { wait: Duration::from_secs(3_600), ..StubJournal::default() },
    ] {
        let harness = SpoolHarness::start(journal, MIB);
        let (response, took) = send(&harness.listener, Body::from(ESIM)).await;
        assert_eq!((response.status().as_u16(), took), (200, Duration::ZERO));
        assert_eq!(stored(response).await, "spooled");
        assert_eq!(counted(&harness.telemetry, "spooled"), 1);
        assert_eq!(harness.spool.stats().callbacks, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_spool_a_callback_is_answered_200_in_time_while_the_journal_hangs() {
    let harness = SpoolHarness::start(StubJournal::with_step(StoreStep::Hang), MIB);
    let time_passes = async {
        harness.journal.store_called.notified().await;
        tokio::time::advance(Duration::from_secs(2)).await;
    };
    let ((response, took), ()) =
        tokio::join!(send(&harness.listener, Body::from(ESIM)), time_passes);
    assert_eq!(response.status(), 200);
    assert!(took < RESPONSE_TIMEOUT);
    assert_eq!(stored(response).await, "spooled");
    // The next callbacks do not wait for the journal.
    let (response, took) = send(&harness.listener, Body::from(ESIM)).await;
    assert_eq!((response.status().as_u16(), took), (200, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn without_room_in_the_spool_a_slow_journal_has_the_whole_time_of_the_response() {
    let harness = SpoolHarness::start(StubJournal::default(), 0);
    let time_passes = async {
        harness.journal.store_called.notified().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        // The runtime fires timers while it is idle.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        harness.journal.release.notify_one();
    };
    let ((response, _), ()) = tokio::join!(send(&harness.listener, Body::from(ESIM)), time_passes);
    assert_eq!(stored(response).await, "new");
}

#[tokio::test(start_paused = true)]
async fn with_a_full_spool_a_callback_is_answered_503() {
    let journal = StubJournal::with_step(StoreStep::Fail(StubJournal::unavailable()));
    let harness = SpoolHarness::start(journal, 20_000);
    let mut spooled = 0;
    let response = loop {
        let body = ESIM.replace("15555551234", &format!("{spooled:011}"));
        let (response, _) = send(&harness.listener, Body::from(body)).await;
        if response.status() != 200 {
            break response;
        }
        spooled += 1;
    };
    assert_eq!(response.status(), 503);
    assert_eq!(error(response).await, "unavailable");
    assert_eq!(counted(&harness.telemetry, "spooled"), spooled);

    // It moves the spooled callbacks, and takes new ones.
    harness.journal.set_step(StoreStep::Store);
    let mover = tokio::spawn(Arc::clone(&harness.spool).run());
    harness.spool.drained().await;
    mover.abort();
    assert_eq!(harness.journal.stored.lock().len() as u64, spooled);
    let (response, _) = send(&harness.listener, Body::from(ESIM)).await;
    assert_eq!(stored(response).await, "new");
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_or_endless_body_is_refused_and_its_connection_closed() {
    let (listener, _) = listener(&Arc::new(StubJournal::default()));
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
    let journal = Arc::new(StubJournal::default());
    let (address, stop, served) = serve(listener(&journal).0).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request().as_bytes()).await.unwrap();
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

#[tokio::test]
async fn a_request_on_a_connection_that_was_opened_just_before_the_listener_ends_is_answered() {
    let journal = Arc::new(StubJournal::with_step(StoreStep::Store));
    let (address, stop, served) = serve(listener(&journal).0).await;
    let mut new = TcpStream::connect(address).await.unwrap();
    let mut used = TcpStream::connect(address).await.unwrap();
    used.write_all(request().as_bytes()).await.unwrap();
    used.read_exact(&mut [0; 12]).await.unwrap();
    stop.cancel();
    let mut rest = String::new();
    used.read_to_string(&mut rest).await.unwrap();

    new.write_all(request().as_bytes()).await.unwrap();
    let mut response = String::new();
    new.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    served.await.unwrap();
}

/// A callback, as a whole request.
fn request() -> String {
    let length = ESIM.len();
    format!("POST {PROFILE} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{ESIM}")
}
