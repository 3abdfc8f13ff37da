use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    domain::{callback::Callback, clock::Timestamp, newtypes::RequestId},
    journal::{
        ReceivedCallback,
        sqlite::{SqliteJournal, SqliteOptions},
    },
};

/// Spells messages, and counts how many events it was asked to encode.
#[derive(Default)]
struct Speller(AtomicUsize);

impl Encode for Speller {
    fn encode(&self, _token: &Token, message: Message<'_>) -> Bytes {
        let word = match message {
            Message::Opened(_) => "opened".into(),
            Message::Event { event, .. } => {
                self.0.fetch_add(1, Ordering::Relaxed);
                format!("event {}", event.cursor.position)
            }
            Message::Bookmark => "bookmark".into(),
            Message::Reconnect { reason, .. } => format!("reconnect {reason:?}"),
            Message::Finished(_) => "finished".into(),
        };
        word.into()
    }
}

struct House {
    _directory: TempDir,
    journal: Arc<dyn Journal>,
    watches: Arc<Watches>,
    speller: Arc<Speller>,
    draining: CancellationToken,
}

fn house(max_stream_age: Duration) -> House {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::unread(),
    };
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&options).unwrap());
    let speller = Arc::new(Speller::default());
    let draining = CancellationToken::new();
    let settings = Settings {
        max_stream_age,
        bookmark_interval: Duration::from_secs(30),
    };
    let watches = Watches::new(
        Arc::clone(&journal),
        speller.clone(),
        settings,
        draining.clone(),
        Instruments::unread(),
    );
    House {
        _directory: directory,
        journal,
        watches,
        speller,
        draining,
    }
}

impl House {
    async fn watch(&self) -> Watch {
        let request = Request {
            target: Some(WatchTarget::Request(RequestId::parse("r").unwrap())),
            token: None,
            until: Until::Finished,
            include_raw: false,
        };
        self.watches.open(request).await.unwrap()
    }

    async fn result(&self, number: usize) {
        let body = format!(
            r#"{{"requestId":"r","deviceIds":[{{"kind":"mdn","id":"555{number:07}"}}],"status":"Success"}}"#
        );
        let arrival = ReceivedCallback {
            callback: Callback::parse(body.as_bytes()).unwrap(),
            account: None,
            service: None,
            receive_time: Timestamp::from_micros(1),
            forwarding: None,
        };
        self.journal.store_callback(arrival).await.unwrap();
    }
}

async fn word(watch: &mut Watch) -> String {
    let frame = watch.next().await.unwrap().unwrap();
    String::from_utf8(frame.bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_bookmarked_at_most_thirty_seconds_apart_and_ends_with_its_age() {
    let house = house(Duration::from_secs(600));
    let mut watch = house.watch().await;
    assert_eq!(word(&mut watch).await, "opened");
    let opened = Instant::now();
    let mut last = Instant::now();
    loop {
        let word = word(&mut watch).await;
        let silence = last.elapsed();
        assert!(silence <= Duration::from_secs(30), "{silence:?}");
        last = Instant::now();
        if word != "bookmark" {
            assert_eq!(word, "reconnect StreamAge");
            break;
        }
        assert!(silence >= Duration::from_secs(20), "{silence:?}");
    }
    let age = opened.elapsed();
    assert!(
        (Duration::from_secs(540)..=Duration::from_secs(600)).contains(&age),
        "{age:?}"
    );
    assert!(matches!(
        watch.next().await,
        Some(Err(StreamError::Reconnect))
    ));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_every_stream_to_reconnect() {
    let house = house(Duration::from_secs(600));
    let mut watch = house.watch().await;
    assert_eq!(word(&mut watch).await, "opened");
    house.draining.cancel();
    assert_eq!(word(&mut watch).await, "reconnect Drain");
    assert!(matches!(
        watch.next().await,
        Some(Err(StreamError::Reconnect))
    ));
}

#[tokio::test]
async fn many_watches_that_keep_up_share_the_reading_and_the_encoding() {
    const WATCHES: usize = 50;
    const RESULTS: usize = 200;
    let house = house(Duration::from_secs(600));
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let mut watch = house.watch().await;
        assert_eq!(word(&mut watch).await, "opened");
        watches.push(watch);
    }
    for number in 0..RESULTS {
        house.result(number).await;
        let expected = format!("event {}", number + 1);
        for watch in &mut watches {
            assert_eq!(word(watch).await, expected);
        }
    }
    assert_eq!(house.speller.0.load(Ordering::Relaxed), RESULTS);
    // The last to leave puts out the light.
    drop(watches);
    assert!(house.watches.tails.0.lock().is_empty());
}

#[tokio::test]
async fn watches_at_any_distance_from_the_end_see_the_same_events_in_the_same_order() {
    const RESULTS: usize = 700;
    let house = house(Duration::from_secs(600));
    let mut slow = house.watch().await;
    let mut fast = house.watch().await;
    assert_eq!(word(&mut slow).await, "opened");
    assert_eq!(word(&mut fast).await, "opened");
    for number in 0..RESULTS {
        house.result(number).await;
        assert_eq!(word(&mut fast).await, format!("event {}", number + 1));
        // Reads now and then: falls behind what is kept, and catches up.
        if number % 350 < 100 {
            word(&mut slow).await;
        }
    }
    let mut late = house.watch().await;
    assert_eq!(word(&mut late).await, "opened");
    for number in 0..RESULTS {
        assert_eq!(word(&mut late).await, format!("event {}", number + 1));
    }
    for number in 200..RESULTS {
        assert_eq!(word(&mut slow).await, format!("event {}", number + 1));
    }
    // All three are at the end, and live on together.
    house.result(RESULTS).await;
    for watch in [&mut slow, &mut fast, &mut late] {
        assert_eq!(word(watch).await, format!("event {}", RESULTS + 1));
    }
}

/// hyper polls a stream only while its client has room for more. So a watch can stop in the middle of a
/// read for as long as its client does not read.
#[tokio::test]
async fn a_watch_that_is_not_polled_in_the_middle_of_a_read_holds_up_no_other() {
    let house = house(Duration::from_secs(600));
    let mut stopped = house.watch().await;
    let mut other = house.watch().await;
    assert_eq!(word(&mut stopped).await, "opened");
    assert_eq!(word(&mut other).await, "opened");
    house.result(0).await;
    let mut reading = Box::pin(stopped.next());
    assert!(futures_util::poll!(&mut reading).is_pending());
    let event = tokio::time::timeout(Duration::from_secs(60), word(&mut other)).await;
    assert_eq!(event.unwrap(), "event 1");
    let frame = reading.await.unwrap().unwrap();
    assert_eq!(frame.bytes(), "event 1");
}

fn request(token: Option<Token>) -> Request {
    Request {
        target: Some(WatchTarget::Request(RequestId::parse("r").unwrap())),
        token,
        until: Until::CaughtUp,
        include_raw: false,
    }
}

/// The words of a stream that ends when it has caught up; and the token that it was opened with.
async fn caught_up(house: &House, token: Option<Token>) -> Result<(Vec<String>, Token), OpenError> {
    let mut watch = house.watches.open(request(token)).await?;
    let opened = watch.token.clone();
    let mut words = Vec::new();
    while let Some(frame) = watch.next().await {
        let bytes = frame.unwrap().bytes().to_vec();
        words.push(String::from_utf8(bytes).unwrap());
    }
    Ok((words, opened))
}

#[tokio::test]
async fn a_token_from_before_the_first_result_is_refused_once_that_was_removed() {
    let house = house(Duration::from_secs(600));
    // Nothing of the request is known yet.
    let (words, nothing_yet) = caught_up(&house, None).await.unwrap();
    assert_eq!(words, ["opened", "bookmark"]);
    for number in 0..2 {
        house.result(number).await;
    }
    let all = ["opened", "event 1", "event 2", "bookmark"];
    let (words, before_all) = caught_up(&house, Some(nothing_yet.clone())).await.unwrap();
    assert_eq!(words, all);
    for token in [&nothing_yet, &before_all] {
        assert_eq!(Token::decode(&token.encode()).as_ref(), Ok(token));
        let (words, _) = caught_up(&house, Some(token.clone())).await.unwrap();
        assert_eq!(words, all);
    }

    while house
        .journal
        .trim(Timestamp::from_micros(2), u64::MAX)
        .await
        .unwrap()
    {}
    house.result(2).await;
    for token in [nothing_yet, before_all] {
        let refused = caught_up(&house, Some(token)).await.err().unwrap();
        let OpenError::Expired { why, oldest } = refused else {
            panic!("{refused}")
        };
        assert_eq!(why, "the events after it have been removed");
        let (words, _) = caught_up(&house, oldest).await.unwrap();
        assert_eq!(words, ["opened", "event 3", "bookmark"]);
    }
    // A new watch receives the stored events.
    let (words, _) = caught_up(&house, None).await.unwrap();
    assert_eq!(words, ["opened", "event 3", "bookmark"]);
}
