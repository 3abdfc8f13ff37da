//! Records the messages of watches.

use futures_util::StreamExt as _;
use thingspace_gateway::proto::{ChangeState, watch_request_response::Event};
use tonic::Status;
use tonic_types::StatusExt;

use super::{
    gateway::Client,
    requests::{WatchCall, WatchStream, until_caught_up},
};
use crate::guarantees::{MessageKind, RecordedMessage, Recording, StreamEnd};

/// A watch with a recording of its messages.
pub struct WatchRecorder {
    recording: Recording,
    stream: Option<WatchStream>,
}

// === impl WatchRecorder ===

impl WatchRecorder {
    /// Opens a watch.
    pub async fn open(client: &mut Client, request: impl WatchCall) -> Self {
        let from = request.token().to_owned();
        let mut recording = Recording { from, ..Recording::default() };
        let stream = match request.call(client).await {
            Ok(stream) => Some(stream),
            Err(status) => {
                recording.end = end(&status);
                None
            }
        };
        Self { recording, stream }
    }

    /// Returns the next event, or `None` if the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        let stream = self.stream.as_mut()?;
        match stream.next().await {
            Some(Ok(message)) => {
                let event = message.event.expect("an event");
                self.recording.messages.push(RecordedMessage {
                    token: message.resume_token,
                    kind: message_kind(&event),
                });
                Some(event)
            }
            None => {
                self.recording.end = StreamEnd::Ok;
                self.stream = None;
                None
            }
            Some(Err(status)) => {
                self.recording.end = end(&status);
                self.stream = None;
                None
            }
        }
    }

    /// Returns the token to resume with.
    pub fn token(&self) -> String {
        let last = self.recording.messages.last();
        last.map_or_else(|| self.recording.from.clone(), |last| last.token.clone())
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> Recording {
        while self.next().await.is_some() {}
        self.recording
    }

    /// Closes the stream.
    pub fn cut(self) -> Recording {
        self.recording
    }
}

/// Records all stored events in one stream.
pub async fn reference(client: &mut Client, request: impl WatchCall) -> Recording {
    let request = until_caught_up(request.resume(""));
    let recording = WatchRecorder::open(client, request).await.finish().await;
    assert_eq!(recording.end, StreamEnd::Ok);
    recording
}

fn message_kind(event: &Event) -> MessageKind {
    match event {
        Event::Opened(_) => MessageKind::Opened,
        Event::DeviceResult(result) => MessageKind::Event(format!(
            "{} {:?} {:?} {:?}",
            result.request_id, result.device_ids, result.outcome, result.receive_time
        )),
        Event::StateChanged(changed) => {
            let change = changed.change.clone().expect("a change");
            MessageKind::Event(format!(
                "{} {:?} {:?}",
                change.change_id,
                change.state(),
                change.update_time
            ))
        }
        Event::Bookmark(_) => MessageKind::Bookmark,
        Event::Reconnect(_) => MessageKind::Reconnect,
        Event::Finished(finished) => {
            let change = finished.change.clone().expect("a change");
            let counted = change.succeeded_count + change.failed_count + change.pending_count;
            MessageKind::Finished {
                state: change.state().as_str_name().into(),
                is_final: matches!(
                    change.state(),
                    ChangeState::Finished
                        | ChangeState::Closed
                        | ChangeState::Rejected
                        | ChangeState::NotSent
                ),
                has_consistent_counts: counted == change.device_count
                    && (change.state() != ChangeState::Finished || change.pending_count == 0),
            }
        }
    }
}

/// Classifies the end of a stream: only a status that the server sent has an ErrorInfo.
fn end(status: &Status) -> StreamEnd {
    match status.get_details_error_info() {
        Some(info) => {
            StreamEnd::Error { code: format!("{:?}", status.code()), reason: info.reason }
        }
        None => StreamEnd::Cut,
    }
}
