//! Each checker must detect a history with one violation.

use super::*;

fn event(position: usize) -> RecordedMessage {
    RecordedMessage {
        token: format!("t{position}"),
        kind: MessageKind::Event(format!("event {position}")),
    }
}

fn opened(token: &str) -> RecordedMessage {
    RecordedMessage { token: token.into(), kind: MessageKind::Opened }
}

fn bookmark(position: usize) -> RecordedMessage {
    RecordedMessage { token: format!("t{position}"), kind: MessageKind::Bookmark }
}

fn finished(position: usize, is_final: bool, has_consistent_counts: bool) -> RecordedMessage {
    let kind = MessageKind::Finished { state: "FINISHED".into(), is_final, has_consistent_counts };
    RecordedMessage { token: format!("t{position}"), kind }
}

fn reference() -> Vec<RecordedMessage> {
    let mut messages = vec![opened("start")];
    messages.extend((0..6).map(event));
    messages.push(finished(5, true, true));
    messages
}

fn stream(from: &str, messages: &[RecordedMessage], end: StreamEnd) -> Recording {
    let first = if from.is_empty() { "start" } else { from };
    let mut all = vec![opened(first)];
    all.extend_from_slice(messages);
    Recording { from: from.into(), messages: all, end }
}

type Checker = fn(&History<'_>) -> CheckResult;

fn check_streams(check: Checker, streams: &[Recording]) -> CheckResult {
    check(&History::new(&reference(), streams))
}

#[test]
fn a_valid_history_passes_all_seven_checkers() {
    let streams = [
        stream("", &[event(0), event(1), bookmark(1), event(2)], StreamEnd::Cut),
        stream("t2", &[event(3)], StreamEnd::Cut),
        stream("t3", &[event(4), event(5), finished(5, true, true)], StreamEnd::Ok),
        stream("t5", &[finished(5, true, true)], StreamEnd::Ok),
        stream("start", &[event(0)], StreamEnd::Cut),
        Recording {
            from: "t1".into(),
            messages: Vec::new(),
            end: StreamEnd::Error {
                code: "OutOfRange".into(),
                reason: "RESUME_TOKEN_EXPIRED".into(),
            },
        },
    ];
    check_streams(check, &streams).unwrap();
}

#[test]
fn each_broken_history_fails_the_matching_checker() {
    let foreign =
        RecordedMessage { token: "t1".into(), kind: MessageKind::Event("another".into()) };
    let internal = Recording {
        from: "t1".into(),
        messages: Vec::new(),
        end: StreamEnd::Error { code: "Internal".into(), reason: "INTERNAL".into() },
    };
    let cut = StreamEnd::Cut;
    let refused = StreamEnd::Error { code: "Unavailable".into(), reason: "RECONNECT".into() };
    let broken: Vec<(&str, Checker, Recording)> = vec![
        ("Ordered", ordered, stream("", &[event(1), event(0)], cut.clone())),
        ("Ordered", ordered, stream("", &[event(0), foreign], cut.clone())),
        ("Ordered", ordered, stream("", &[event(9)], cut.clone())),
        ("Unique", unique, stream("", &[event(0), event(0)], cut.clone())),
        ("Unique", unique, stream("t2", &[event(2)], cut.clone())),
        ("Gap-free", gap_free, stream("", &[event(0), event(2)], cut.clone())),
        ("Resumable", resumable, stream("t1", &[event(3)], cut.clone())),
        ("Resumable", resumable, stream("", &[event(1)], cut.clone())),
        ("Bookmarkable", bookmarkable, stream("", &[event(0), bookmark(1)], cut.clone())),
        ("Bookmarkable", bookmarkable, stream("", &[event(0), event(1), bookmark(0)], cut.clone())),
        (
            "Terminal-once",
            terminal_once,
            stream("", &[finished(5, true, true), event(0)], StreamEnd::Ok),
        ),
        ("Terminal-once", terminal_once, stream("t5", &[finished(5, false, true)], StreamEnd::Ok)),
        ("Terminal-once", terminal_once, stream("t5", &[finished(5, true, false)], StreamEnd::Ok)),
        ("Terminal-once", terminal_once, stream("t5", &[finished(5, true, true)], refused)),
        ("Never silently stuck", never_silently_stuck, internal),
        ("Never silently stuck", never_silently_stuck, stream("", &[event(0)], StreamEnd::Ok)),
        (
            "Never silently stuck",
            never_silently_stuck,
            Recording { from: String::new(), messages: vec![event(0)], end: cut },
        ),
    ];
    for (name, check, stream) in broken {
        let found =
            check_streams(check, std::slice::from_ref(&stream)).expect_err(&format!("{stream:?}"));
        assert!(found.starts_with(name), "{found}");
    }
}
