//! A call or a stream whose end will be recorded.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    audit::{
        error::RecordError,
        log::{Inner, Recording},
        record::{AuditEvent, AuditRecord},
    },
    domain::newtypes::ChangeId,
};

/// A call or a stream in progress. If the begin has a record, the end has a place in the queue. Dropped before its end,
/// it is recorded as CANCELLED: the client has gone.
#[must_use = "a dropped call is recorded as cancelled"]
pub struct AuditedCall(Option<OpenCall>);

struct OpenCall {
    log: Arc<Inner>,
    /// The record of the begin.
    begun: AuditRecord,
    /// The place of the record of the end. `None` if the stream is counted.
    slot: Option<OwnedSemaphorePermit>,
}

/// The end of a call or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEnd {
    /// The gRPC status, such as `OK`.
    pub code: &'static str,
    /// The reason of an error or of the end of a stream.
    pub reason: Option<&'static str>,
    /// Execution of the change by ThingSpace: `YES`, `NO` or `UNKNOWN`.
    pub executed: Option<&'static str>,
}

impl AuditedCall {
    /// A call without a log.
    pub(super) fn unaudited() -> Self {
        Self(None)
    }

    pub(super) fn new(
        log: Arc<Inner>,
        begun: AuditRecord,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self(Some(OpenCall { log, begun, slot }))
    }

    /// Sets the change that the call made or found.
    pub fn set_change(&mut self, change_id: ChangeId) {
        if let Some(call) = &mut self.0 {
            call.begun.change_id = Some(change_id);
        }
    }

    /// Records the end at once. The future ends when the record survives a power loss; a dropped future does not
    /// cancel it. Send the response after that, also if it fails: the change has been sent.
    ///
    /// # Errors
    ///
    /// The record is delayed, because the log cannot be written now.
    pub fn end(
        mut self,
        end: CallEnd,
    ) -> impl Future<Output = Result<(), RecordError>> + Send + use<> {
        let recording = self.0.take().map(|call| call.end(end));
        async move {
            match recording {
                Some(recording) => recording.ended().await,
                None => Ok(()),
            }
        }
    }
}

impl Drop for AuditedCall {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            let is_stream = call.begun.event == AuditEvent::StreamOpened;
            let executed = (!is_stream).then_some("UNKNOWN");
            drop(call.end(CallEnd { code: "CANCELLED", reason: None, executed }));
        }
    }
}

impl OpenCall {
    fn end(self, end: CallEnd) -> Recording {
        let Self { log, begun, slot } = self;
        let is_stream = begun.event == AuditEvent::StreamOpened;
        let record = AuditRecord {
            event: if is_stream { AuditEvent::StreamEnded } else { AuditEvent::Call },
            code: Some(end.code),
            reason: end.reason,
            executed: end.executed,
            ..begun
        };
        match slot {
            Some(slot) => log.enqueue(&record, slot, !is_stream),
            None => {
                log.add(AuditEvent::StreamsEnded, &record);
                Recording::Ended(Ok(()))
            }
        }
    }
}
