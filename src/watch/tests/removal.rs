//! Watches whose events retention removes.

use super::*;

#[tokio::test]
async fn a_token_before_the_first_result_is_rejected_once_the_result_is_removed() {
    let fixture = fixture(Duration::from_secs(600));
    // The request has no events yet.
    let (words, nothing_yet) = read_until_caught_up(&fixture, None).await.unwrap();
    assert_eq!(words, ["opened", "bookmark"]);
    for number in 0..2 {
        fixture.result(number).await;
    }
    let all = ["opened", "event 1", "event 2", "bookmark"];
    let (words, before_all) =
        read_until_caught_up(&fixture, Some(nothing_yet.clone())).await.unwrap();
    assert_eq!(words, all);
    for token in [&nothing_yet, &before_all] {
        assert_eq!(ResumeToken::decode(&token.encode()).as_ref(), Ok(token));
        let (words, _) = read_until_caught_up(&fixture, Some(token.clone())).await.unwrap();
        assert_eq!(words, all);
    }

    fixture.trim(2).await;
    fixture.result(2).await;
    for token in [nothing_yet, before_all] {
        let refused = read_until_caught_up(&fixture, Some(token)).await.err().unwrap();
        let WatchOpenError::Expired { reason, oldest } = refused else { panic!("{refused}") };
        assert_eq!(reason, "the events after it have been removed");
        let (words, _) = read_until_caught_up(&fixture, oldest).await.unwrap();
        assert_eq!(words, ["opened", "event 3", "bookmark"]);
    }
    // A new watch receives the stored events.
    let (words, _) = read_until_caught_up(&fixture, None).await.unwrap();
    assert_eq!(words, ["opened", "event 3", "bookmark"]);
}

/// Reads messages of an account's stream until one is this word. Returns its token.
async fn read_account_up_to(fixture: &Fixture, last: &str) -> ResumeToken {
    let mut watch = fixture.open(account_request(None)).await.unwrap();
    while next_word(&mut watch).await != last {}
    watch.token.clone()
}

/// Reads messages until the stream ends with an error. Returns it.
async fn read_to_error(watch: &mut WordWatch) -> StreamError {
    loop {
        // Events that were read before are still delivered.
        if let Err(error) = watch.next().await.expect("an error") {
            return error;
        }
    }
}

#[tokio::test]
async fn a_token_of_an_account_expires_once_an_event_after_it_is_removed() {
    let fixture = fixture(Duration::from_secs(600));
    // Events 2 and 3 are removed, 1 and 4 stay.
    for (request, micros) in [("kept", 9), ("old", 1), ("old", 2), ("kept", 9)] {
        fixture.result_of(request, usize::try_from(micros).unwrap(), micros).await;
    }
    fixture.result_of("kept", 10, 10).await;
    let opened = read_account_up_to(&fixture, "opened").await;
    let before = read_account_up_to(&fixture, "event 1").await;
    let removed = read_account_up_to(&fixture, "event 2").await;
    let last_removed = read_account_up_to(&fixture, "event 3").await;
    let after = read_account_up_to(&fixture, "event 4").await;
    fixture.trim(5).await;

    for token in [&opened, &before, &removed] {
        assert_eq!(ResumeToken::decode(&token.encode()).as_ref(), Ok(token));
        let refused = read_to_end(&fixture, account_request(Some(token.clone()))).await;
        let WatchOpenError::Expired { reason, oldest } = refused.err().unwrap() else {
            panic!("{token:?}");
        };
        assert_eq!(reason, "the events after it have been removed");
        let oldest = oldest.expect("an oldest token");
        let (words, _) = read_to_end(&fixture, account_request(Some(oldest))).await.unwrap();
        assert_eq!(words, ["opened", "event 1", "event 4", "bookmark"]);
    }
    // The event of the first token is removed itself.
    for (token, rest) in [(last_removed, &["event 4"][..]), (after, &[])] {
        let (words, _) = read_to_end(&fixture, account_request(Some(token))).await.unwrap();
        assert_eq!(words, [&["opened"], rest, &["bookmark"]].concat());
    }
    // A token that was issued since is valid, although it precedes the removed events.
    let before = read_account_up_to(&fixture, "event 1").await;
    let (words, _) = read_to_end(&fixture, account_request(Some(before))).await.unwrap();
    assert_eq!(words, ["opened", "event 4", "bookmark"]);
}

#[tokio::test]
async fn an_open_watch_of_an_account_ends_if_events_that_it_has_not_delivered_are_removed() {
    let fixture = fixture(Duration::from_secs(600));
    for number in 0..300 {
        fixture.result(number).await;
    }
    let mut ahead = fixture.open(account_request(None)).await.unwrap();
    while next_word(&mut ahead).await != "event 300" {}
    let mut behind = fixture.open(account_request(None)).await.unwrap();
    while next_word(&mut behind).await != "event 1" {}
    fixture.trim(5).await;
    fixture.result_of("new", 1, 9).await;

    assert_eq!(next_word(&mut ahead).await, "event 301");
    let end = read_to_error(&mut behind).await;
    assert!(matches!(end, StreamError::EventsRemoved), "{end}");
    assert!(behind.token.cursor.position < 300);
    // The same if all events have been removed and nothing follows.
    let token = behind.token.clone();
    let refused = fixture.open(account_request(Some(token))).await.err().unwrap();
    assert!(matches!(refused, WatchOpenError::Expired { .. }), "{refused}");
}

#[tokio::test]
async fn a_token_of_an_account_is_rejected_only_if_something_after_it_was_removed_since() {
    let fixture = fixture(Duration::from_secs(600));
    // The second request is removed first, then the first one, then the third one.
    for (request, micros) in [("second", 2), ("first", 1), ("third", 3), ("kept", 9)] {
        fixture.result_of(request, 1, micros).await;
    }
    let read = async |token: &ResumeToken| {
        let read = read_to_end(&fixture, account_request(Some(token.clone()))).await;
        read.map(|(words, _)| words.join(" ")).ok()
    };
    fixture.trim(2).await;
    let opened = read_account_up_to(&fixture, "opened").await;
    let first = read_account_up_to(&fixture, "event 1").await;
    let third = read_account_up_to(&fixture, "event 3").await;
    let rest = Some("opened event 3 event 4 bookmark".to_owned());
    assert_eq!(read(&first).await, rest);
    // A removal before an older one: the newest removed position stays the same.
    fixture.trim(3).await;
    assert_eq!(read(&opened).await, None);
    assert_eq!(read(&first).await, rest);
    assert_eq!(read(&third).await, Some("opened event 4 bookmark".to_owned()));
    fixture.trim(4).await;
    assert_eq!(read(&first).await, None);
    assert_eq!(read(&third).await, Some("opened event 4 bookmark".to_owned()));
}

#[tokio::test]
async fn an_open_watch_of_an_account_notices_a_removal_before_an_older_one() {
    let fixture = fixture(Duration::from_secs(600));
    for number in 0..300 {
        fixture.result_of("second", number, 2).await;
    }
    fixture.result_of("first", 0, 1).await;
    // The newest event is removed before the watch begins.
    fixture.trim(2).await;
    let mut watch = fixture.open(account_request(None)).await.unwrap();
    while next_word(&mut watch).await != "event 1" {}
    fixture.trim(3).await;
    let end = read_to_error(&mut watch).await;
    assert!(matches!(end, StreamError::EventsRemoved), "{end}");
}

#[tokio::test]
async fn a_watch_of_an_account_has_no_events_that_were_removed_before_it_began() {
    let fixture = fixture(Duration::from_secs(600));
    let open = async || {
        let until = Until::Finished;
        fixture.open(WatchOptions { until, ..account_request(None) }).await.unwrap()
    };
    let mut others = [open().await, open().await];
    for (request, micros) in [("old", 1), ("kept", 9)] {
        fixture.result_of(request, 1, micros).await;
        // The watches share the events.
        for watch in &mut others {
            while next_word(watch).await != format!("event {}", micros.min(2)) {}
        }
    }
    fixture.trim(5).await;
    let mut watch = open().await;
    assert_eq!(next_word(&mut watch).await, "opened");
    assert_eq!(next_word(&mut watch).await, "event 2");
    fixture.result_of("kept", 2, 9).await;
    for watch in others.iter_mut().chain([&mut watch]) {
        assert_eq!(next_word(watch).await, "event 3");
    }
}

#[tokio::test]
async fn an_open_watch_of_a_request_ends_if_the_request_is_removed() {
    let fixture = fixture(Duration::from_secs(600));
    let mut watches = [fixture.watch().await, fixture.watch().await];
    fixture.result(0).await;
    for watch in &mut watches {
        while next_word(watch).await != "event 1" {}
    }
    let mut opened = fixture.watch().await;
    assert_eq!(next_word(&mut opened).await, "opened");
    fixture.trim(2).await;
    // A later result makes a new request. The watch may have missed events of the old one.
    fixture.result(1).await;
    for watch in watches.iter_mut().chain([&mut opened]) {
        let end = watch.next().await.unwrap().unwrap_err();
        assert!(matches!(end, StreamError::Removed), "{end}");
        let token = watch.token.clone();
        let refused = fixture.watches.open(request(Some(token))).await.err().unwrap();
        assert!(matches!(refused, WatchOpenError::Expired { .. }), "{refused}");
        // A new watch has only the events of the new request, although the others are still open.
        let (words, _) = read_until_caught_up(&fixture, None).await.unwrap();
        assert_eq!(words, ["opened", "event 2", "bookmark"]);
    }
}
