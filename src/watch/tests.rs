use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    callbacks::payload::parse,
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, RequestId},
    },
    journal::{
        EventPayload, Journal, ReceivedCallback, WatchTarget,
        sqlite::{self, SqliteOptions},
    },
    telemetry::Instruments,
};

/// Encodes messages as words with their tokens, and counts the events that it encodes.
#[derive(Default)]
struct WordEncoder(AtomicUsize);

impl MessageEncoder for WordEncoder {
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>, out: &mut BytesMut) {
        let word: String = match message {
            WatchMessage::Opened(_) => "opened".into(),
            WatchMessage::Event { event, include_raw } => {
                self.0.fetch_add(1, Ordering::Relaxed);
                if include_raw && let EventPayload::Result(result) = &event.payload {
                    out.extend_from_slice(result.raw_json());
                }
                format!("event {}", event.cursor.position)
            }
            WatchMessage::Bookmark => "bookmark".into(),
            WatchMessage::Reconnect { reason, .. } => format!("reconnect {reason:?}"),
            WatchMessage::Finished(_) => "finished".into(),
        };
        out.extend_from_slice(format!("{word}\n{}", token.encode()).as_bytes());
    }
}

struct Fixture {
    _directory: TempDir,
    journal: Arc<dyn Journal>,
    watches: Arc<Watches>,
    encoder: Arc<WordEncoder>,
    draining: CancellationToken,
}

fn fixture(max_age: Duration) -> Fixture {
    fixture_with(StreamTimes { max_age, bookmark_interval: Duration::from_secs(30) })
}

fn fixture_with(times: StreamTimes) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    };
    let journal: Arc<dyn Journal> = sqlite::open(&options).unwrap();
    let encoder = Arc::new(WordEncoder::default());
    let draining = CancellationToken::new();
    let watches = Watches::new(
        Arc::clone(&journal),
        encoder.clone(),
        times,
        draining.clone(),
        Instruments::noop(),
    );
    Fixture { _directory: directory, journal, watches, encoder, draining }
}

/// A watch whose messages are delivered one by one.
struct WordWatch {
    watch: Watch,
    /// Messages that were delivered together.
    frames: Bytes,
    /// The token of the last message.
    token: ResumeToken,
}

impl From<Watch> for WordWatch {
    fn from(watch: Watch) -> Self {
        Self { token: watch.token.clone(), watch, frames: Bytes::new() }
    }
}

impl WordWatch {
    async fn next(&mut self) -> Option<Result<String, StreamError>> {
        if self.frames.is_empty() {
            match self.watch.next().await? {
                Ok(frames) => self.frames = frames,
                Err(error) => return Some(Err(error)),
            }
        }
        assert_eq!(self.frames.get_u8(), 0);
        let length = self.frames.get_u32() as usize;
        let message = String::from_utf8(self.frames.split_to(length).to_vec()).unwrap();
        let (word, token) = message.split_once('\n').unwrap();
        self.token = ResumeToken::decode(token).unwrap();
        Some(Ok(word.to_owned()))
    }
}

impl Fixture {
    async fn open(&self, options: WatchOptions) -> Result<WordWatch, WatchOpenError> {
        self.watches.open(options).await.map(WordWatch::from)
    }

    async fn watch(&self) -> WordWatch {
        let request = WatchOptions {
            target: Some(WatchTarget::Request(RequestId::parse("r").unwrap())),
            token: None,
            until: Until::Finished,
            include_raw: false,
            deadline: None,
            access: None,
        };
        self.open(request).await.unwrap()
    }

    async fn result(&self, number: usize) {
        self.result_of("r", number, 1).await;
    }

    /// Removes what is older than a time in microseconds.
    async fn trim(&self, before: i64) {
        while self.journal.trim(Timestamp::from_micros(before), u64::MAX).await.unwrap() {}
    }

    /// Stores a result that names the account.
    async fn result_of(&self, request: &str, number: usize, micros: i64) {
        let body = format!(
            r#"{{"requestId":"{request}","deviceIds":[{{"kind":"mdn","id":"555{number:07}"}}],"status":"Success"}}"#
        );
        self.store(&body, micros).await;
    }

    /// Stores a result whose callback has a body of about this size.
    async fn large_result(&self, number: usize, size: usize) {
        let body = format!(
            r#"{{"requestId":"r","deviceIds":[{{"kind":"mdn","id":"555{number:07}"}}],"status":"Success","comment":"{}"}}"#,
            "x".repeat(size)
        );
        self.store(&body, 1).await;
    }

    async fn store(&self, body: &str, micros: i64) {
        let arrival = ReceivedCallback {
            callback: parse(body.as_bytes()).unwrap(),
            account: Some(account()),
            service: None,
            receive_time: Timestamp::from_micros(micros),
            forwarding: None,
        };
        self.journal.store_callback(arrival).await.unwrap();
    }
}

fn account() -> AccountName {
    AccountName::parse("0000123456-00001").unwrap()
}

fn account_request(token: Option<ResumeToken>) -> WatchOptions {
    WatchOptions { target: Some(WatchTarget::Account(account())), ..request(token) }
}

async fn next_word(watch: &mut WordWatch) -> String {
    watch.next().await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_sends_a_bookmark_in_each_interval_and_ends_at_its_maximum_age() {
    for seconds in [1, 30, 60] {
        check_idle_stream(Duration::from_secs(seconds)).await;
    }
}

async fn check_idle_stream(bookmark_interval: Duration) {
    let fixture =
        fixture_with(StreamTimes { max_age: Duration::from_secs(600), bookmark_interval });
    let mut watch = fixture.watch().await;
    assert_eq!(next_word(&mut watch).await, "opened");
    let opened = Instant::now();
    let mut last = Instant::now();
    loop {
        let word = next_word(&mut watch).await;
        let silence = last.elapsed();
        // The timers of Tokio have a resolution of one millisecond.
        assert!(silence <= bookmark_interval + Duration::from_millis(1), "{silence:?}");
        last = Instant::now();
        if word != "bookmark" {
            assert_eq!(word, "reconnect StreamAge");
            break;
        }
        assert!(silence >= bookmark_interval.mul_f64(2.0 / 3.0), "{silence:?}");
    }
    let age = opened.elapsed();
    assert!((Duration::from_secs(540)..=Duration::from_secs(600)).contains(&age), "{age:?}");
    assert!(matches!(watch.next().await, Some(Err(StreamError::Reconnect))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_reconnect_to_every_stream() {
    let fixture = fixture(Duration::from_secs(600));
    let mut watch = fixture.watch().await;
    assert_eq!(next_word(&mut watch).await, "opened");
    fixture.draining.cancel();
    assert_eq!(next_word(&mut watch).await, "reconnect Drain");
    assert!(matches!(watch.next().await, Some(Err(StreamError::Reconnect))));
}

#[tokio::test]
async fn watches_that_keep_up_share_reads_and_encoding() {
    const WATCHES: usize = 50;
    const RESULTS: usize = 200;
    let fixture = fixture(Duration::from_secs(600));
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let mut watch = fixture.watch().await;
        assert_eq!(next_word(&mut watch).await, "opened");
        watches.push(watch);
    }
    for number in 0..RESULTS {
        fixture.result(number).await;
        let expected = format!("event {}", number + 1);
        for watch in &mut watches {
            assert_eq!(next_word(watch).await, expected);
        }
    }
    assert_eq!(fixture.encoder.0.load(Ordering::Relaxed), RESULTS);
    drop(watches);
    assert!(fixture.watches.tail_registry.is_empty());
}

#[tokio::test]
async fn watches_at_any_distance_from_the_end_receive_the_same_events_in_order() {
    const RESULTS: usize = 700;
    let fixture = fixture(Duration::from_secs(600));
    let mut slow = fixture.watch().await;
    let mut fast = fixture.watch().await;
    assert_eq!(next_word(&mut slow).await, "opened");
    assert_eq!(next_word(&mut fast).await, "opened");
    for number in 0..RESULTS {
        fixture.result(number).await;
        assert_eq!(next_word(&mut fast).await, format!("event {}", number + 1));
        // Falls behind the ring, and catches up.
        if number % 350 < 100 {
            next_word(&mut slow).await;
        }
    }
    let mut late = fixture.watch().await;
    assert_eq!(next_word(&mut late).await, "opened");
    for number in 0..RESULTS {
        assert_eq!(next_word(&mut late).await, format!("event {}", number + 1));
    }
    for number in 200..RESULTS {
        assert_eq!(next_word(&mut slow).await, format!("event {}", number + 1));
    }
    // All three are at the end, and receive the next event.
    fixture.result(RESULTS).await;
    for watch in [&mut slow, &mut fast, &mut late] {
        assert_eq!(next_word(watch).await, format!("event {}", RESULTS + 1));
    }
}

fn options(request: &str) -> WatchOptions {
    let target = Some(WatchTarget::Request(RequestId::parse(request).unwrap()));
    WatchOptions {
        target,
        token: None,
        until: Until::Finished,
        include_raw: false,
        deadline: None,
        access: None,
    }
}

#[tokio::test]
async fn rings_that_changed_long_ago_are_emptied_and_their_watches_read_the_journal() {
    const REQUESTS: usize = 12;
    const RESULTS: usize = 40;
    let fixture = fixture(Duration::from_secs(600));
    let mut slow = Vec::new();
    for number in 0..REQUESTS {
        let request = format!("request-{number}");
        let mut fast = fixture.open(options(&request)).await.unwrap();
        let mut behind = fixture.open(options(&request)).await.unwrap();
        assert_eq!(next_word(&mut fast).await, "opened");
        assert_eq!(next_word(&mut behind).await, "opened");
        for result in 0..RESULTS {
            fixture.result_of(&request, result, 1).await;
            assert_eq!(
                next_word(&mut fast).await,
                format!("event {}", number * RESULTS + result + 1)
            );
        }
        let bytes = fixture.watches.tail_registry.ring_bytes();
        assert!(bytes <= tail::MAX_BYTES_OF_ALL_RINGS, "{bytes}");
        slow.push((fast, behind));
    }
    // More than half of the bound is in use: not all rings are empty.
    assert!(fixture.watches.tail_registry.ring_bytes() > 0);
    for (number, (_fast, behind)) in slow.iter_mut().enumerate() {
        for result in 0..RESULTS {
            assert_eq!(next_word(behind).await, format!("event {}", number * RESULTS + result + 1));
        }
    }
    drop(slow);
    assert_eq!(fixture.watches.tail_registry.ring_bytes(), 0);
}

#[tokio::test]
async fn many_watches_of_a_target_are_woken_seldom_while_events_arrive_without_a_pause() {
    const WATCHES: usize = 1_000;
    const PAUSE: Duration = Duration::from_millis(100);
    const RESULTS: u64 = 200;
    let fixture = fixture(Duration::from_secs(600));
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        watches.push(fixture.watch().await);
    }
    let watch = &mut watches[0];
    assert_eq!(next_word(watch).await, "opened");
    let started = Instant::now();
    let store = async {
        for number in 0..RESULTS {
            fixture.result(usize::try_from(number).unwrap()).await;
        }
    };
    let read = async {
        let mut wakeups = 0;
        while watch.token.cursor.position < RESULTS {
            watch.watch.next().await.unwrap().unwrap();
            watch.token = watch.watch.token.clone();
            wakeups += 1;
        }
        wakeups
    };
    let (wakeups, ()) = tokio::join!(read, store);
    // One more for the first event, which is delivered at once, and one for the rest.
    let most = started.elapsed().as_millis() / PAUSE.as_millis() + 2;
    assert!(wakeups <= most, "{wakeups} of at most {most}");
}

#[tokio::test]
async fn a_page_with_large_bodies_of_callbacks_ends_early() {
    const RESULTS: usize = 12;
    let fixture = fixture(Duration::from_secs(600));
    for number in 0..RESULTS {
        fixture.large_result(number, 100 * 1024).await;
    }
    let key = page::TailKey {
        target: WatchTarget::Request(RequestId::parse("r").unwrap()),
        include_raw: true,
    };
    let tail = fixture.watches.tail_registry.acquire(&key);
    let (mut cursor, mut events, mut total) = (crate::journal::Cursor::START, 0, 0);
    while let tail::TailRead::Events(page, _) = tail.start_read(cursor, 0).await.unwrap() {
        let mut next = 0;
        let mut bytes = 0;
        while let Some(chunk) = page.next_chunk(&mut next) {
            bytes += chunk.frames.len();
        }
        assert!(bytes <= (256 + 101) * 1024, "{bytes}");
        events += next;
        total += bytes;
        cursor = page.tip();
    }
    assert_eq!(events, RESULTS);
    assert!(total >= RESULTS * 100 * 1024, "{total}");
    fixture.watches.tail_registry.release(&key);
}

/// An idle watch has only this, its tail, and what tonic and HTTP/2 need for a stream.
#[test]
fn an_idle_watch_is_small() {
    let size = size_of::<Watch>() + size_of::<tokio::time::Sleep>();
    assert!(size <= 640, "{size}");
    assert!(size_of::<tail::Tail>() <= 400, "{}", size_of::<tail::Tail>());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_deadline_of_its_call() {
    let fixture = fixture(Duration::from_secs(600));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut watch =
        fixture.open(WatchOptions { deadline: Some(deadline), ..options("r") }).await.unwrap();
    assert_eq!(next_word(&mut watch).await, "opened");
    assert!(matches!(watch.next().await, Some(Err(StreamError::DeadlineExceeded))));
    assert!(watch.next().await.is_none());
    assert!((deadline..deadline + Duration::from_millis(10)).contains(&Instant::now()));
}

/// The access of a client until it is revoked or expires.
#[derive(Debug)]
struct TestAccess {
    is_allowed: AtomicBool,
    expires_at: Option<Instant>,
}

impl StreamAccess for TestAccess {
    fn is_allowed(&self) -> bool {
        self.is_allowed.load(Ordering::Relaxed)
    }

    fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_reconnect_when_the_credential_of_its_client_expires() {
    let fixture = fixture(Duration::from_secs(600));
    let expires_at = Instant::now() + Duration::from_secs(10);
    let access = TestAccess { is_allowed: AtomicBool::new(true), expires_at: Some(expires_at) };
    let options = WatchOptions { access: Some(Arc::new(access)), ..options("r") };
    let mut watch = fixture.open(options).await.unwrap();
    assert_eq!(next_word(&mut watch).await, "opened");
    assert_eq!(next_word(&mut watch).await, "reconnect CredentialExpired");
    assert!((expires_at..expires_at + Duration::from_millis(10)).contains(&Instant::now()));
    assert!(matches!(watch.next().await, Some(Err(StreamError::Reconnect))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn only_the_streams_of_a_client_without_access_end_when_access_is_checked() {
    let fixture = fixture(Duration::from_secs(600));
    let access = Arc::new(TestAccess { is_allowed: AtomicBool::new(true), expires_at: None });
    let with_access = |access: &Arc<TestAccess>| {
        let access: Arc<dyn StreamAccess> = access.clone();
        fixture.open(WatchOptions { access: Some(access), ..options("r") })
    };
    let mut removed = with_access(&access).await.unwrap();
    let mut other = fixture.watch().await;
    assert_eq!(next_word(&mut removed).await, "opened");
    assert_eq!(next_word(&mut other).await, "opened");
    fixture.watches.check_access();
    fixture.result(0).await;
    assert_eq!(next_word(&mut removed).await, "event 1");
    assert_eq!(next_word(&mut other).await, "event 1");
    access.is_allowed.store(false, Ordering::Relaxed);
    // An event and the check: no later event is delivered.
    fixture.watches.check_access();
    fixture.result(1).await;
    assert_eq!(next_word(&mut removed).await, "reconnect CredentialExpired");
    assert!(matches!(removed.next().await, Some(Err(StreamError::Reconnect))));
    assert_eq!(next_word(&mut other).await, "event 2");
    // A stream that is opened after a check that its caller has not seen.
    let mut late = with_access(&access).await.unwrap();
    assert_eq!(next_word(&mut late).await, "opened");
    assert_eq!(next_word(&mut late).await, "reconnect CredentialExpired");
}

#[tokio::test]
async fn a_client_without_access_receives_nothing_more_of_a_page_that_was_read_before() {
    let fixture = fixture(Duration::from_secs(600));
    let access = Arc::new(TestAccess { is_allowed: AtomicBool::new(true), expires_at: None });
    // Each chunk of the page has one of them.
    for number in 0..3 {
        fixture.large_result(number, 40_000).await;
    }
    let shared: Arc<dyn StreamAccess> = access.clone();
    let options = WatchOptions { include_raw: true, access: Some(shared), ..options("r") };
    let mut watch = fixture.open(options).await.unwrap();
    assert_eq!(next_word(&mut watch).await, "opened");
    assert!(next_word(&mut watch).await.contains("event 1"));
    access.is_allowed.store(false, Ordering::Relaxed);
    fixture.watches.check_access();
    assert_eq!(next_word(&mut watch).await, "reconnect CredentialExpired");
    assert!(matches!(watch.next().await, Some(Err(StreamError::Reconnect))));
}

#[tokio::test]
async fn an_expired_credential_ends_a_stream_before_its_next_chunk() {
    let fixture = fixture(Duration::from_secs(600));
    let access = TestAccess { is_allowed: AtomicBool::new(true), expires_at: Some(Instant::now()) };
    fixture.result(0).await;
    let options = WatchOptions { access: Some(Arc::new(access)), ..options("r") };
    let mut watch = fixture.open(options).await.unwrap();
    assert_eq!(next_word(&mut watch).await, "opened");
    assert_eq!(next_word(&mut watch).await, "reconnect CredentialExpired");
}

/// hyper polls a stream only while its client has a send window. So a watch can stop in the middle of a read
/// for as long as its client does not read.
#[tokio::test]
async fn a_watch_that_is_not_polled_during_a_read_does_not_block_others() {
    let fixture = fixture(Duration::from_secs(600));
    let mut stopped = fixture.watch().await;
    let mut other = fixture.watch().await;
    assert_eq!(next_word(&mut stopped).await, "opened");
    assert_eq!(next_word(&mut other).await, "opened");
    fixture.result(0).await;
    let mut reading = Box::pin(stopped.next());
    assert!(futures_util::poll!(&mut reading).is_pending());
    let event = tokio::time::timeout(Duration::from_secs(60), next_word(&mut other)).await;
    assert_eq!(event.unwrap(), "event 1");
    assert_eq!(reading.await.unwrap().unwrap(), "event 1");
}

fn request(token: Option<ResumeToken>) -> WatchOptions {
    WatchOptions {
        target: Some(WatchTarget::Request(RequestId::parse("r").unwrap())),
        token,
        until: Until::CaughtUp,
        include_raw: false,
        deadline: None,
        access: None,
    }
}

/// Reads a stream until it has caught up. Returns its words, and the token that it was opened with.
async fn read_until_caught_up(
    fixture: &Fixture,
    token: Option<ResumeToken>,
) -> Result<(Vec<String>, ResumeToken), WatchOpenError> {
    read_to_end(fixture, request(token)).await
}

/// Reads a stream to its end. Returns its words, and the token that it was opened with.
async fn read_to_end(
    fixture: &Fixture,
    options: WatchOptions,
) -> Result<(Vec<String>, ResumeToken), WatchOpenError> {
    let mut watch = fixture.open(options).await?;
    let opened = watch.token.clone();
    let mut words = Vec::new();
    while let Some(word) = watch.next().await {
        words.push(word.unwrap());
    }
    Ok((words, opened))
}

mod removal;
