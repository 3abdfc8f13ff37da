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

/// A call or a stream in progress. Its end has a place in the queue. Dropped before its end, it is recorded as
/// CANCELLED: the client has gone.
#[must_use = "a dropped call is recorded as cancelled"]
pub struct AuditedCall(Option<OpenCall>);

struct OpenCall {
    log: Arc<Inner>,
    /// The record of the begin.
    begun: AuditRecord,
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
    /// The change that the call made or found.
    pub change_id: Option<ChangeId>,
}

impl AuditedCall {
    /// A call without a log.
    pub(super) fn unaudited() -> Self {
        Self(None)
    }

    pub(super) fn new(
        log: Arc<Inner>,
        begun: AuditRecord,
        slot: impl Into<Option<OwnedSemaphorePermit>>,
    ) -> Self {
        Self(Some(OpenCall { log, begun, slot: slot.into() }))
    }

    /// Drops the call without a record of its end.
    pub(super) fn forget(mut self) {
        self.0 = None;
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
            let change_id = None;
            drop(call.end(CallEnd { code: "CANCELLED", reason: None, executed, change_id }));
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
            change_id: end.change_id.or(begun.change_id),
            ..begun
        };
        log.enqueue_or_push(&record, slot, !is_stream)
    }
}
