//! The seven guarantees of a watch, each with a checker that judges a recorded
//! history; etcd's robustness validators are the model.
//!
//! Tokens are opaque, so a history is judged against a reference: one stream
//! of the same target from its beginning, recorded after everything else. A
//! checker answers with what it found wrong.

use std::collections::{HashMap, HashSet};

mod checker_tests;

/// What one stream was sent, and how it ended.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The token that it was opened with; empty for the beginning.
    pub from: String,
    pub messages: Vec<RecordedMessage>,
    pub end: StreamEnd,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RecordedMessage {
    pub token: String,
    pub kind: MessageKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MessageKind {
    Opened,
    /// A result or a change of state, as text that tells it from all others.
    Event(String),
    Bookmark,
    Reconnect,
    /// With the state, and whether succeeded + failed + pending = devices.
    Finished {
        state: String,
        is_final: bool,
        has_consistent_counts: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum StreamEnd {
    /// The client stopped, or its connection broke.
    #[default]
    Cut,
    Ok,
    /// The server's code and reason.
    Refused {
        code: String,
        reason: String,
    },
}

/// What is judged: the reference, and the streams of the same target.
pub struct History<'a> {
    pub reference: &'a [RecordedMessage],
    pub streams: &'a [Recording],
}

impl Recording {
    pub fn ends_with_finished(&self) -> bool {
        let last = self.messages.last();
        last.is_some_and(|last| matches!(last.kind, MessageKind::Finished { .. }))
    }
}

type CheckResult = Result<(), String>;

/// All seven.
pub fn check(history: &History<'_>) -> CheckResult {
    ordered(history)?;
    unique(history)?;
    gap_free(history)?;
    resumable(history)?;
    bookmarkable(history)?;
    terminal_once(history)?;
    never_silently_stuck(history)
}

impl<'a> History<'a> {
    /// The place of each event's token in the reference.
    fn places(&self) -> HashMap<&'a str, usize> {
        let events = self.reference.iter().filter(|message| is_event(message));
        events
            .enumerate()
            .map(|(place, event)| (event.token.as_str(), place))
            .collect()
    }

    fn events(&self) -> Vec<&'a RecordedMessage> {
        self.reference
            .iter()
            .filter(|message| is_event(message))
            .collect()
    }

    /// The place that a stream begins after: -1 for before everything.
    fn start(&self, stream: &Recording) -> Result<isize, String> {
        if stream.from.is_empty() {
            return Ok(-1);
        }
        self.place_of(&stream.from)
    }

    /// The place of a token; that of a beginning is -1.
    fn place_of(&self, token: &str) -> Result<isize, String> {
        if let Some(place) = self.places().get(token) {
            return isize::try_from(*place).map_err(|error| error.to_string());
        }
        let opened = self.streams.iter().filter(|stream| stream.from.is_empty());
        let beginnings: HashSet<&str> = opened
            .filter_map(|stream| stream.messages.first())
            .map(|message| message.token.as_str())
            .collect();
        if beginnings.contains(token)
            || self
                .reference
                .first()
                .is_some_and(|first| first.token == token)
        {
            return Ok(-1);
        }
        Err(format!("the token {token} is in nobody's stream"))
    }
}

fn is_event(message: &RecordedMessage) -> bool {
    matches!(message.kind, MessageKind::Event(_))
}

fn delivered(stream: &Recording) -> impl Iterator<Item = &RecordedMessage> {
    stream.messages.iter().filter(|message| is_event(message))
}

/// Messages come in journal order.
pub fn ordered(history: &History<'_>) -> CheckResult {
    let places = history.places();
    let events = history.events();
    for stream in history.streams {
        let mut last = None;
        for message in delivered(stream) {
            let Some(place) = places.get(message.token.as_str()) else {
                return Err(format!(
                    "Ordered: an event that the reference lacks: {message:?}"
                ));
            };
            if events[*place].kind != message.kind {
                return Err(format!(
                    "Ordered: another event stood at this place: {message:?}"
                ));
            }
            if last.is_some_and(|last| last >= *place) {
                return Err(format!("Ordered: out of order: {message:?}"));
            }
            last = Some(*place);
        }
    }
    Ok(())
}

/// No event twice on a stream, nor again after a resume.
pub fn unique(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        let start = history.start(stream)?;
        let mut seen = HashSet::new();
        let places = history.places();
        for message in delivered(stream) {
            if !seen.insert(&message.token) {
                return Err(format!("Unique: twice on one stream: {message:?}"));
            }
            let place = places.get(message.token.as_str()).copied();
            if place.is_some_and(|place| isize::try_from(place).unwrap_or(isize::MAX) <= start) {
                return Err(format!("Unique: again after a resume: {message:?}"));
            }
        }
    }
    let mut seen = HashSet::new();
    for event in history.events() {
        if !seen.insert(format!("{:?}", event.kind)) {
            return Err(format!("Unique: the same event at two places: {event:?}"));
        }
    }
    Ok(())
}

/// Nothing that belongs between two received tokens is missing.
pub fn gap_free(history: &History<'_>) -> CheckResult {
    let places = history.places();
    for stream in history.streams {
        let mut last = None;
        for message in delivered(stream) {
            let place = places.get(message.token.as_str()).copied();
            if let (Some(last), Some(place)) = (last, place)
                && place > last + 1
            {
                return Err(format!(
                    "Gap-free: {} events are missing before {message:?}",
                    place - last - 1
                ));
            }
            last = place;
        }
    }
    Ok(())
}

/// After a token, the next event is exactly the next one.
pub fn resumable(history: &History<'_>) -> CheckResult {
    let places = history.places();
    for stream in history.streams {
        let start = history.start(stream)?;
        let Some(first) = delivered(stream).next() else {
            continue;
        };
        let place = places
            .get(first.token.as_str())
            .copied()
            .unwrap_or(usize::MAX);
        if isize::try_from(place).unwrap_or(isize::MAX) != start + 1 {
            return Err(format!(
                "Resumable: after place {start} came place {place}: {first:?}"
            ));
        }
    }
    Ok(())
}

/// A bookmark says that all before it has been delivered.
pub fn bookmarkable(history: &History<'_>) -> CheckResult {
    let places = history.places();
    for stream in history.streams {
        let mut reached = history.start(stream)?;
        for message in &stream.messages {
            match &message.kind {
                MessageKind::Event(_) => {
                    let place = places.get(message.token.as_str()).copied().unwrap_or(0);
                    reached = isize::try_from(place).unwrap_or(isize::MAX);
                }
                MessageKind::Bookmark | MessageKind::Finished { .. } => {
                    let promised = history.place_of(&message.token)?;
                    if promised != reached {
                        return Err(format!(
                            "Bookmarkable: {message:?} promises place {promised}, delivered was {reached}"
                        ));
                    }
                }
                MessageKind::Opened | MessageKind::Reconnect => {}
            }
        }
    }
    Ok(())
}

/// `finished` comes once a stream, last, and only when it is true.
pub fn terminal_once(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        for (place, message) in stream.messages.iter().enumerate() {
            let MessageKind::Finished {
                is_final,
                has_consistent_counts: adds_up,
                ..
            } = &message.kind
            else {
                continue;
            };
            if place + 1 != stream.messages.len() {
                return Err(format!("Terminal-once: something follows {message:?}"));
            }
            if !is_final || !adds_up {
                return Err(format!("Terminal-once: not true: {message:?}"));
            }
            // A connection may break before the OK.
            if matches!(stream.end, StreamEnd::Refused { .. }) {
                return Err(format!(
                    "Terminal-once: not followed by OK but {:?}",
                    stream.end
                ));
            }
        }
    }
    Ok(())
}

/// A stream begins with `opened` and ends for a reason that it tells; a token
/// that cannot be honoured is refused with its reason, never INTERNAL.
pub fn never_silently_stuck(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        let first = stream.messages.first();
        match (&stream.end, first.map(|first| &first.kind)) {
            (StreamEnd::Refused { code, reason }, None) => {
                let honest = matches!(
                    code.as_str(),
                    "OutOfRange" | "InvalidArgument" | "NotFound" | "Unavailable"
                );
                if !honest || reason.is_empty() {
                    return Err(format!(
                        "Never silently stuck: refused with {code} {reason}"
                    ));
                }
            }
            (_, Some(MessageKind::Opened)) => {}
            (StreamEnd::Cut, None) => {}
            (end, first) => {
                return Err(format!(
                    "Never silently stuck: began with {first:?}, ended {end:?}"
                ));
            }
        }
        let last = stream.messages.last().map(|last| &last.kind);
        match (&stream.end, last) {
            (StreamEnd::Ok, Some(MessageKind::Finished { .. } | MessageKind::Bookmark))
            | (StreamEnd::Cut, _) => {}
            (StreamEnd::Ok, last) => {
                return Err(format!("Never silently stuck: OK after {last:?}"));
            }
            (StreamEnd::Refused { reason, .. }, Some(MessageKind::Reconnect))
                if reason == "RECONNECT" => {}
            (StreamEnd::Refused { .. }, None) => {}
            (StreamEnd::Refused { reason, .. }, _) if reason == "JOURNAL_UNAVAILABLE" => {}
            (end, last) => return Err(format!("Never silently stuck: {end:?} after {last:?}")),
        }
    }
    Ok(())
}
