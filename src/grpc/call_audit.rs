//! The audit of one call: collects what its record says, and writes it.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use parking_lot::Mutex;
use tonic::{Code, Extensions, Status};
use tonic_types::StatusExt as _;

use crate::{
    access::Caller,
    audit::{AuditEvent, AuditLog, AuditRecord, AuditText, AuditUnavailable, AuditedCall, CallEnd},
    domain::newtypes::{AccountName, ChangeId},
    grpc::error::{ApiError, Executed, reason::ErrorReason},
    operations::ChangeRequest,
    proto,
    telemetry::{AuthMethod, status_name},
};

/// The audit of a call. Extension of its request. Cheap to clone. The default one records nothing.
#[derive(Clone, Default)]
pub(super) struct CallAudit(Option<Arc<Mutex<Call>>>);

struct Call {
    log: AuditLog,
    record: AuditRecord,
    phase: Phase,
}

enum Phase {
    /// The message has not been read.
    Arriving,
    /// The handler runs.
    Handled,
    /// The begin of the call is being written. Nothing has been sent.
    Beginning(Box<AuditedCall>),
    /// The begin of the call is in the log.
    Begun(Box<AuditedCall>),
    /// The client has the status of a change that continues. Its end is recorded once its ID is known.
    Continuing(Box<AuditedCall>, CallEnd),
    Ended,
}

impl CallAudit {
    /// Starts the audit of a call. `peer` is `None` for a call through the admin socket.
    pub(super) fn new(log: &AuditLog, method: &'static str, peer: Option<IpAddr>) -> Self {
        if !log.is_enabled() {
            return Self::default();
        }
        let record = AuditRecord {
            method: Some(method),
            peer,
            ..AuditRecord::new(AuditEvent::Call, log.new_call_id())
        };
        let call = Call { log: log.clone(), record, phase: Phase::Arriving };
        Self(Some(Arc::new(Mutex::new(call))))
    }

    /// Returns the audit of a call.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Adds the caller.
    pub(super) fn set_caller(&self, caller: &Caller) {
        self.update(|record| {
            let identity = caller.identity();
            record.caller = Some(caller.name().as_str().into());
            record.identity = identity.map(|identity| AuditText::new(identity.names().primary()));
            let method = identity.map_or(AuthMethod::None, |identity| identity.method());
            record.auth_method = Some(method.name());
        });
    }

    /// Notes that the handler of the call runs.
    pub(super) fn enter_handler(&self) {
        if let Some(call) = &self.0 {
            let mut call = call.lock();
            if matches!(call.phase, Phase::Arriving) {
                call.phase = Phase::Handled;
            }
        }
    }

    /// Adds the account of the call.
    pub(super) fn set_account(&self, account: Option<&AccountName>) {
        self.update(|record| record.account = account.cloned());
    }

    /// Adds the change that a read is about, and its account.
    pub(super) fn set_change(&self, change_id: ChangeId, account: &AccountName) {
        self.update(|record| {
            record.change_id = Some(change_id);
            record.account = Some(account.clone());
        });
    }

    /// Adds the change that a change call has made or found. If its client has gone, the end of the call is recorded
    /// then.
    pub(super) fn set_claimed(self, change_id: ChangeId) {
        if let Some(call) = &self.0
            && let Phase::Begun(begun) | Phase::Continuing(begun, _) = &mut call.lock().phase
        {
            begun.set_change(change_id);
        }
    }

    /// Adds the content of a change call.
    pub(super) fn set_request(&self, request: &ChangeRequest) {
        self.update(|record| {
            record.account = Some(request.account.clone());
            record.operation = Some(request.change_type().as_str());
            record.devices = u32::try_from(request.devices.len()).ok();
        });
    }

    /// Records the begin of a change, before anything is sent.
    ///
    /// # Errors
    ///
    /// The log cannot be written. The call must be rejected.
    pub(super) async fn begin(&self) -> Result<(), ApiError> {
        let Some(call) = &self.0 else {
            return Ok(());
        };
        let (log, record) = {
            let call = call.lock();
            let record = AuditRecord { event: AuditEvent::CallStarted, ..call.record.clone() };
            (call.log.clone(), record)
        };
        let (begun, recorded) = log.begin(record).await.map_err(unavailable)?;
        // If the client leaves now, the end of the call has a record already.
        call.lock().phase = Phase::Beginning(Box::new(begun));
        recorded.await.map_err(unavailable)?;
        call.lock().set_begun();
        Ok(())
    }

    /// Records the begin of a command of an operator. `target` is the id of the object that it acts on.
    ///
    /// # Errors
    ///
    /// The log cannot be written. The command must be rejected.
    pub(super) async fn begin_action(
        &self,
        action: &'static str,
        target: Option<u64>,
    ) -> Result<(), ApiError> {
        self.update(|record| {
            record.action = Some(action);
            record.target = target.map(|target| AuditText::new(&target.to_string()));
        });
        self.begin().await
    }

    /// Records that a stream was opened.
    pub(super) fn open_stream(&self) {
        if let Some(call) = &self.0 {
            let mut call = call.lock();
            let record = AuditRecord { event: AuditEvent::StreamOpened, ..call.record.clone() };
            call.phase = Phase::Begun(Box::new(call.log.open_stream(record)));
        }
    }

    /// Records the end of a change or a command, and waits until the record survives a power loss. The response is
    /// sent after that, also if the record is delayed.
    pub(super) async fn end<T>(
        &self,
        result: &Result<T, ApiError>,
        executed: Option<&'static str>,
    ) {
        let Some(begun) = self.take_begun() else {
            return;
        };
        let end = match result {
            Ok(_) => CallEnd { code: status_name(0), reason: None, executed },
            Err(error) => CallEnd {
                code: status_name(error.code() as i32),
                reason: Some(error.reason.name()),
                executed: error.executed().and_then(executed_name),
            },
        };
        let _delayed = begun.end(end).await;
    }

    fn take_begun(&self) -> Option<AuditedCall> {
        let mut call = self.0.as_ref()?.lock();
        match std::mem::replace(&mut call.phase, Phase::Ended) {
            Phase::Begun(begun) => Some(*begun),
            phase => {
                call.phase = phase;
                None
            }
        }
    }

    /// Records the status in headers or trailers, unless the end of the call is recorded already. Never waits.
    pub(super) fn finish(&self, headers: &HeaderMap) {
        if let Some(call) = &self.0
            && let Some(status) = Status::from_header_map(headers)
        {
            let info = status.get_details_error_info();
            let reason = info.as_ref().map(|info| format!("REASON_{}", info.reason));
            let reason = reason.and_then(|name| ErrorReason::from_str_name(&name));
            let executed = info.as_ref().and_then(|info| info.metadata.get("executed"));
            let executed =
                executed.and_then(|name| Executed::from_str_name(&format!("EXECUTED_{name}")));
            call.lock().finish(status.code(), reason, executed);
        }
    }

    fn update(&self, update: impl FnOnce(&mut AuditRecord)) {
        if let Some(call) = &self.0 {
            update(&mut call.lock().record);
        }
    }
}

impl Call {
    fn set_begun(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Beginning(begun) => Phase::Begun(begun),
            phase => phase,
        };
    }

    fn finish(&mut self, code: Code, reason: Option<ErrorReason>, executed: Option<Executed>) {
        let (code_name, reason) = (status_name(code as i32), reason.map(ErrorReason::name));
        let executed = executed.and_then(executed_name);
        self.record.code = Some(code_name);
        self.record.reason = reason;
        self.record.executed = executed;
        let end = CallEnd { code: code_name, reason, executed };
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Arriving if code != Code::Ok => self.log.record_refusal(&self.record),
            // A caller without a permission on one account has others, and can repeat the call as often as it likes.
            Phase::Handled if code == Code::PermissionDenied => {
                self.log.record_refusal(&self.record);
            }
            Phase::Arriving | Phase::Handled => self.log.record_call(&self.record),
            // Queued at once. Nothing waits until it is written.
            Phase::Beginning(begun) => drop(begun.end(CallEnd { executed: Some("NO"), ..end })),
            Phase::Begun(begun) if self.record.operation.is_some() => {
                self.phase = Phase::Continuing(begun, end);
            }
            Phase::Begun(begun) => drop(begun.end(end)),
            phase @ (Phase::Continuing(..) | Phase::Ended) => self.phase = phase,
        }
    }
}

impl Drop for Call {
    /// The client has gone before the end of the call, or the call has ended and its change continues.
    fn drop(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            phase @ (Phase::Arriving | Phase::Handled | Phase::Beginning(_)) => {
                self.phase = phase;
                let is_change = self.record.operation.is_some();
                self.finish(Code::Cancelled, None, is_change.then_some(Executed::No));
            }
            // Recorded as cancelled.
            Phase::Begun(begun) => drop(begun),
            Phase::Continuing(begun, end) => drop(begun.end(end)),
            Phase::Ended => {}
        }
    }
}

/// Returns whether ThingSpace has executed a change that a call returns.
pub(super) fn executed_of(change: &proto::Change) -> &'static str {
    use proto::ChangeState as State;
    match change.state() {
        State::Accepted | State::Finished | State::Overdue => "YES",
        State::Closed if change.accept_time.is_some() => "YES",
        // Closed although it was never known whether ThingSpace accepted the change, or not sent yet by another call.
        State::Closed | State::OutcomeUnknown => "UNKNOWN",
        State::Unspecified | State::Queued | State::Dispatched => "UNKNOWN",
        State::Rejected | State::NotSent => "NO",
    }
}

fn unavailable(error: AuditUnavailable) -> ApiError {
    ApiError::new(ErrorReason::AuditUnavailable, error.to_string())
}

fn executed_name(executed: Executed) -> Option<&'static str> {
    match executed {
        Executed::No => Some("NO"),
        Executed::Unknown => Some("UNKNOWN"),
        Executed::Unspecified => None,
    }
}

#[cfg(test)]
mod tests;
