//! The observations of a client about its change.

use thingspace_gateway::proto::{Change, ChangeState};
use tokio::time::Instant;

use super::planned_changes::PlannedChange;
use crate::guarantees::{MessageKind, Recording};

/// The first call of a client.
#[derive(Debug, Clone, Copy)]
pub struct FirstCall {
    pub start: Instant,
    pub deadline_passed: bool,
    pub cancelled: bool,
}

/// The streams of an ended watch.
pub struct WatchedChange {
    pub streams: Vec<Recording>,
    pub until: Instant,
}

/// The observations of a client about its change.
pub struct ClientRecord {
    pub planned_change: PlannedChange,
    pub first_call: FirstCall,
    /// End of its watch.
    pub until: Instant,
    /// `None` if no change has its key.
    pub change: Option<Change>,
    pub streams: Vec<Recording>,
    /// One stream of all events, recorded after the run.
    pub whole: Recording,
}

impl ClientRecord {
    pub fn state(&self) -> &'static str {
        let state = self.change.as_ref().map(|change| change.state().as_str_name());
        state.map_or("NOT_FOUND", |name| name.trim_start_matches("CHANGE_STATE_"))
    }

    /// True if its history has this state.
    pub fn has_been_in(&self, state: ChangeState) -> bool {
        let events = self.whole.messages.iter();
        let state = format!("{state:?}");
        let mut texts = events.filter_map(|message| match &message.kind {
            MessageKind::Event(text) => Some(text),
            _ => None,
        });
        texts.any(|text| text.split(' ').nth(1) == Some(state.as_str()))
    }
}
