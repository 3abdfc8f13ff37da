//! The seven guarantees of a watch, and a checker of recorded histories for each. The model are etcd's
//! robustness validators.
//!
//! Tokens are opaque, so a history is compared with a reference: one stream of the same target from its
//! beginning, recorded last. A checker returns the first violation.

use std::collections::{HashMap, HashSet};

mod checker_tests;

/// The messages and the end of one stream.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The token that it was opened with, or an empty text for the beginning.
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
    /// A result or a state transition, as a unique text.
    Event(String),
    Bookmark,
    Reconnect,
    Finished {
        state: String,
        is_final: bool,
        /// True if succeeded + failed + pending = devices.
        has_consistent_counts: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum StreamEnd {
    /// The client closed the stream, or its connection broke.
    #[default]
    Cut,
    Ok,
    /// An error with the server's code and reason.
    Error {
        code: String,
        reason: String,
    },
}

/// The reference, and the streams of the same target.
pub struct History<'a> {
    reference: &'a [RecordedMessage],
    streams: &'a [Recording],
    /// Position of each event's token in the reference.
    positions: HashMap<&'a str, usize>,
    /// The tokens before the first event.
    beginnings: HashSet<&'a str>,
}

impl Recording {
    pub fn ends_with_finished(&self) -> bool {
        let last = self.messages.last();
        last.is_some_and(|last| matches!(last.kind, MessageKind::Finished { .. }))
    }
}

type CheckResult = Result<(), String>;

/// Checks all seven guarantees.
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
    pub fn new(reference: &'a [RecordedMessage], streams: &'a [Recording]) -> Self {
        let events = reference.iter().filter(|message| is_event(message));
        let tokens = events.map(|event| event.token.as_str());
        let from_beginning = streams.iter().filter(|stream| stream.from.is_empty());
        let opened = from_beginning.filter_map(|stream| stream.messages.first());
        Self {
            reference,
            streams,
            positions: tokens.enumerate().map(|(position, token)| (token, position)).collect(),
            beginnings: opened
                .chain(reference.first())
                .map(|message| message.token.as_str())
                .collect(),
        }
    }

    fn events(&self) -> Vec<&'a RecordedMessage> {
        self.reference.iter().filter(|message| is_event(message)).collect()
    }

    /// Position of the last event before a stream, or -1 for the beginning.
    fn start(&self, stream: &Recording) -> Result<isize, String> {
        if stream.from.is_empty() {
            return Ok(-1);
        }
        self.position_of(&stream.from)
    }

    /// Position of a token, or -1 for the beginning.
    fn position_of(&self, token: &str) -> Result<isize, String> {
        if let Some(position) = self.positions.get(token) {
            return isize::try_from(*position).map_err(|error| error.to_string());
        }
        if self.beginnings.contains(token) {
            return Ok(-1);
        }
        Err(format!("no stream has the token {token}"))
    }
}

pub fn is_event(message: &RecordedMessage) -> bool {
    matches!(message.kind, MessageKind::Event(_))
}

fn delivered(stream: &Recording) -> impl Iterator<Item = &RecordedMessage> {
    stream.messages.iter().filter(|message| is_event(message))
}

/// Messages have the order of the journal.
pub fn ordered(history: &History<'_>) -> CheckResult {
    let positions = &history.positions;
    let events = history.events();
    for stream in history.streams {
        let mut last = None;
        for message in delivered(stream) {
            let Some(position) = positions.get(message.token.as_str()) else {
                return Err(format!("Ordered: an event that the reference lacks: {message:?}"));
            };
            if events[*position].kind != message.kind {
                return Err(format!("Ordered: another event at this position: {message:?}"));
            }
            if last.is_some_and(|last| last >= *position) {
                return Err(format!("Ordered: out of order: {message:?}"));
            }
            last = Some(*position);
        }
    }
    Ok(())
}

/// A stream delivers no event twice, also after a resume.
pub fn unique(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        let start = history.start(stream)?;
        let mut seen = HashSet::new();
        let positions = &history.positions;
        for message in delivered(stream) {
            if !seen.insert(&message.token) {
                return Err(format!("Unique: twice on one stream: {message:?}"));
            }
            let position = positions.get(message.token.as_str()).copied();
            if position
                .is_some_and(|position| isize::try_from(position).unwrap_or(isize::MAX) <= start)
            {
                return Err(format!("Unique: repeated after a resume: {message:?}"));
            }
        }
    }
    let mut seen = HashSet::new();
    for event in history.events() {
        if !seen.insert(format!("{:?}", event.kind)) {
            return Err(format!("Unique: the same event at two positions: {event:?}"));
        }
    }
    Ok(())
}

/// No event between two received tokens is missing.
pub fn gap_free(history: &History<'_>) -> CheckResult {
    let positions = &history.positions;
    for stream in history.streams {
        let mut last = None;
        for message in delivered(stream) {
            let position = positions.get(message.token.as_str()).copied();
            if let (Some(last), Some(position)) = (last, position)
                && position > last + 1
            {
                return Err(format!(
                    "Gap-free: {} events are missing before {message:?}",
                    position - last - 1
                ));
            }
            last = position;
        }
    }
    Ok(())
}

/// A token resumes with exactly the next event.
pub fn resumable(history: &History<'_>) -> CheckResult {
    let positions = &history.positions;
    for stream in history.streams {
        let start = history.start(stream)?;
        let Some(first) = delivered(stream).next() else {
            continue;
        };
        let position = positions.get(first.token.as_str()).copied().unwrap_or(usize::MAX);
        if isize::try_from(position).unwrap_or(isize::MAX) != start + 1 {
            return Err(format!(
                "Resumable: position {position} follows position {start}: {first:?}"
            ));
        }
    }
    Ok(())
}

/// All events before a bookmark have been delivered.
pub fn bookmarkable(history: &History<'_>) -> CheckResult {
    let positions = &history.positions;
    for stream in history.streams {
        let mut reached = history.start(stream)?;
        for message in &stream.messages {
            match &message.kind {
                MessageKind::Event(_) => {
                    let position = positions.get(message.token.as_str()).copied().unwrap_or(0);
                    reached = isize::try_from(position).unwrap_or(isize::MAX);
                }
                MessageKind::Bookmark | MessageKind::Finished { .. } => {
                    let promised = history.position_of(&message.token)?;
                    if promised != reached {
                        return Err(format!(
                            "Bookmarkable: {message:?} has position {promised}, delivered up to {reached}"
                        ));
                    }
                }
                MessageKind::Opened | MessageKind::Reconnect => {}
            }
        }
    }
    Ok(())
}

/// `finished` is the only and last message of its kind, and true.
pub fn terminal_once(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        for (position, message) in stream.messages.iter().enumerate() {
            let MessageKind::Finished { is_final, has_consistent_counts, .. } = &message.kind
            else {
                continue;
            };
            if position + 1 != stream.messages.len() {
                return Err(format!("Terminal-once: something follows {message:?}"));
            }
            if !is_final || !has_consistent_counts {
                return Err(format!("Terminal-once: not true: {message:?}"));
            }
            // The connection can break before the OK.
            if matches!(stream.end, StreamEnd::Error { .. }) {
                return Err(format!("Terminal-once: not followed by OK but {:?}", stream.end));
            }
        }
    }
    Ok(())
}

/// A stream begins with `opened` and ends with a reason. An invalid token is rejected with a reason, never
/// with INTERNAL.
pub fn never_silently_stuck(history: &History<'_>) -> CheckResult {
    for stream in history.streams {
        let first = stream.messages.first();
        match (&stream.end, first.map(|first| &first.kind)) {
            (StreamEnd::Error { code, reason }, None) => {
                let is_documented = matches!(
                    code.as_str(),
                    "OutOfRange" | "InvalidArgument" | "NotFound" | "Unavailable"
                );
                if !is_documented || reason.is_empty() {
                    return Err(format!("Never silently stuck: rejected with {code} {reason}"));
                }
            }
            (_, Some(MessageKind::Opened)) => {}
            (StreamEnd::Cut, None) => {}
            (end, first) => {
                return Err(format!("Never silently stuck: began with {first:?}, ended {end:?}"));
            }
        }
        let last = stream.messages.last().map(|last| &last.kind);
        match (&stream.end, last) {
            (StreamEnd::Ok, Some(MessageKind::Finished { .. } | MessageKind::Bookmark))
            | (StreamEnd::Cut, _) => {}
            (StreamEnd::Ok, last) => {
                return Err(format!("Never silently stuck: OK after {last:?}"));
            }
            (StreamEnd::Error { reason, .. }, Some(MessageKind::Reconnect))
                if reason == "RECONNECT" => {}
            (StreamEnd::Error { .. }, None) => {}
            (StreamEnd::Error { reason, .. }, _) if reason == "JOURNAL_UNAVAILABLE" => {}
            (end, last) => return Err(format!("Never silently stuck: {end:?} after {last:?}")),
        }
    }
    Ok(())
}
