//! The handlers of `OperatorService`, for the people who run the gateway.

mod pauses;
mod quarantine;
mod replica_state;

use std::{iter::zip, sync::Arc, time::Duration};

use axum::{Extension, Router};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{Request, Response, Status, server::NamedService as _};

use crate::{
    access::Caller,
    audit::AuditLog,
    background::RegistrationStatuses,
    callbacks::{Quarantine, RecentCallbacks},
    config::RegisterPolicy,
    dispatch::Pauses,
    domain::{
        clock::{Clock, Timestamp},
        state::ChangeState,
        violation::FieldReason,
    },
    grpc::{
        access::caller,
        admission::concurrency::MAX_SMALL_MESSAGE,
        call_audit::CallAudit,
        error::{ApiError, reason::ErrorReason},
        generated::stub::operator_service_server::{OperatorService, OperatorServiceServer},
        message::RequestMessage,
        middleware::{Layers, with_layers},
    },
    journal::Journal,
    proto,
    telemetry::{Instruments, LogFilter},
    thingspace::ThingSpace,
};

/// Range of the duration of a log filter.
const MIN_LOG_FILTER_DURATION: Duration = Duration::from_secs(1);
const MAX_LOG_FILTER_DURATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum time for a read of the state. Without it, the response lacks this part.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Implements `OperatorService`. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) quarantine: Quarantine,
    pub(crate) pauses: Arc<Pauses>,
    pub(crate) thingspace: Arc<ThingSpace>,
    pub(crate) log_filter: LogFilter,
    pub(crate) clock: Arc<dyn Clock>,
    /// True while the gateway is ready.
    pub(crate) serving: watch::Receiver<bool>,
    /// True while this replica is the leader.
    pub(crate) is_leader: watch::Receiver<bool>,
    /// The time at which the replica started.
    pub(crate) start_time: Timestamp,
    pub(crate) instruments: Instruments,
    pub(crate) recent_callbacks: RecentCallbacks,
    pub(crate) registrations: RegistrationStatuses,
    /// `callbacks.register`.
    pub(crate) register_policy: RegisterPolicy,
}

type Reply<T> = Result<Response<T>, Status>;

impl Operator {
    /// Returns a router with this service alone, for the admin socket.
    pub fn into_router(self, audit: AuditLog) -> Router {
        let service = OperatorServiceServer::new(self).max_decoding_message_size(MAX_SMALL_MESSAGE);
        let path = format!("/{}/{{*method}}", OperatorServiceServer::<Self>::NAME);
        let router = Router::new().route_service(&path, service);
        let layers = Layers { audit, ..Layers::default() };
        with_layers(router.layer(Extension(Caller::local())), layers)
    }

    fn change_counts(&self) -> Vec<proto::ChangeStateCount> {
        let counts = zip(ChangeState::ALL, self.journal.state_counts().0);
        let counts = counts.map(|(state, count)| proto::ChangeStateCount {
            state: proto::ChangeState::from(state).into(),
            count,
        });
        counts.collect()
    }

    /// Converts a point of the monotonic clock into a time of the day.
    fn to_timestamp(&self, at: Instant) -> Timestamp {
        self.clock.now().plus(at.saturating_duration_since(Instant::now()))
    }

    async fn login_status(&self) -> Option<proto::LoginStatus> {
        let status = timeout(READ_TIMEOUT, self.thingspace.login_status()).await.ok()?.ok()?;
        Some(proto::LoginStatus {
            locked_out: status.is_locked_out,
            failed_logins: signed(status.failures),
            token_valid: status.has_token,
            session_open: status.has_session,
        })
    }

    async fn quarantine_status(&self) -> Option<proto::QuarantineStatus> {
        let statistics = timeout(READ_TIMEOUT, self.journal.statistics()).await.ok()?.ok()?;
        Some(proto::QuarantineStatus {
            unreviewed: signed(statistics.quarantine.unreviewed),
            reviewed: signed(statistics.quarantine.reviewed),
            bytes: signed(statistics.quarantine.bytes),
        })
    }

    /// Applies a valid log filter. Returns the one in effect.
    fn apply_log_filter(
        &self,
        filter: &str,
        duration: Option<Duration>,
    ) -> Result<String, ApiError> {
        self.log_filter
            .set(filter, duration)
            .map_err(|error| ApiError::new(ErrorReason::Internal, error.to_string()))?;
        let (filter, _end) = self.log_filter.current();
        tracing::warn!(filter, ?duration, "operator changed the log filter");
        Ok(filter)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Checks that the caller may operate on all accounts. Returns the audit of the call.
fn require_everywhere<T>(request: &Request<T>) -> Result<CallAudit, ApiError> {
    let (caller, audit) = caller(request.extensions())?;
    caller.require_operate_everywhere()?;
    Ok(audit)
}

/// Runs a command, with a record before and after it. `target` is the ID of the object that it acts on.
async fn audited<T>(
    audit: &CallAudit,
    action: &'static str,
    target: Option<u64>,
    command: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    audit.begin_action(action, target).await?;
    let result = command.await;
    audit.end(&result, None).await;
    result
}

impl RequestMessage for proto::SetLogFilterRequest {
    /// The filter, and how long it applies.
    type Parsed = (String, Option<Duration>);

    fn parse(self) -> Result<Self::Parsed, ApiError> {
        let range = MIN_LOG_FILTER_DURATION..=MAX_LOG_FILTER_DURATION;
        let duration = match self.duration.map(Duration::try_from) {
            None => None,
            Some(Ok(duration)) if range.contains(&duration) => Some(duration),
            Some(_) => {
                let description = "must be from 1 second to 7 days";
                return Err(ApiError::invalid_field("duration", FieldReason::Value, description));
            }
        };
        LogFilter::check(&self.filter).map_err(|_invalid| {
            let description = "is not a list of directives of tracing's EnvFilter without values \
                               of fields, such as `info,thingspace_gateway=debug`";
            ApiError::invalid_field("filter", FieldReason::Format, description)
        })?;
        Ok((self.filter, duration))
    }
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Reply<proto::GetStatusResponse> {
        let (caller, _audit) = caller(request.extensions())?;
        caller.require_monitor_everywhere().map_err(ApiError::from)?;
        let (login, quarantine) = (self.login_status().await, self.quarantine_status().await);
        let registrations = self.registrations().await;
        let (log_filter, end) = self.log_filter.current();
        Ok(Response::new(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serving: *self.serving.borrow(),
            leader: *self.is_leader.borrow(),
            change_counts: self.change_counts(),
            pauses: self.pauses.list().iter().map(pauses::to_proto).collect(),
            log_filter,
            log_filter_end_time: end.map(|end| self.to_timestamp(end).into()),
            login,
            quarantine,
            start_time: Some(self.start_time.into()),
            registrations,
            callback_counts: self.callback_counts(),
            recent_callbacks: self.recent_callbacks(),
        }))
    }

    async fn pause_changes(
        &self,
        request: Request<proto::PauseChangesRequest>,
    ) -> Reply<proto::PauseChangesResponse> {
        let (caller, audit) = caller(request.extensions())?;
        let (account, reason) = request.into_inner().parse()?;
        pauses::require_operate(&caller, account.as_ref())?;
        audit.set_account(account.as_ref());
        let pause = pauses::pause(&self.pauses, &caller, account, reason);
        let pause = audited(&audit, "pause_changes", None, pause).await?;
        Ok(Response::new(proto::PauseChangesResponse { pause: Some(pause) }))
    }

    async fn resume_changes(
        &self,
        request: Request<proto::ResumeChangesRequest>,
    ) -> Reply<proto::ResumeChangesResponse> {
        let (caller, audit) = caller(request.extensions())?;
        let account = request.into_inner().parse()?;
        pauses::require_operate(&caller, account.as_ref())?;
        audit.set_account(account.as_ref());
        let resumed = pauses::resume(&self.pauses, &caller, account);
        let resumed = audited(&audit, "resume_changes", None, resumed).await?;
        Ok(Response::new(proto::ResumeChangesResponse { resumed }))
    }

    async fn reset_lockout(
        &self,
        request: Request<proto::ResetLockoutRequest>,
    ) -> Reply<proto::ResetLockoutResponse> {
        let audit = require_everywhere(&request)?;
        let reset = async {
            let reset = self.thingspace.reset_lockout().await;
            reset.map_err(|error| ApiError::new(ErrorReason::JournalUnavailable, error))
        };
        audited(&audit, "reset_lockout", None, reset).await?;
        tracing::warn!("operator reset the log-in lock-out");
        Ok(Response::new(proto::ResetLockoutResponse {}))
    }

    async fn set_log_filter(
        &self,
        request: Request<proto::SetLogFilterRequest>,
    ) -> Reply<proto::SetLogFilterResponse> {
        let audit = require_everywhere(&request)?;
        let (filter, duration) = request.into_inner().parse()?;
        let applied = async { self.apply_log_filter(&filter, duration) };
        let filter = audited(&audit, "set_log_filter", None, applied).await?;
        Ok(Response::new(proto::SetLogFilterResponse { filter }))
    }

    async fn list_quarantined_callbacks(
        &self,
        request: Request<proto::ListQuarantinedCallbacksRequest>,
    ) -> Reply<proto::ListQuarantinedCallbacksResponse> {
        let audit = require_everywhere(&request)?;
        let (after_id, limit) = request.into_inner().parse()?;
        // A command: callbacks that are marked as reviewed are deleted earlier.
        let listed = quarantine::list(&self.quarantine, after_id, limit);
        let callbacks = audited(&audit, "list_quarantined_callbacks", None, listed).await?;
        Ok(Response::new(proto::ListQuarantinedCallbacksResponse { callbacks }))
    }

    async fn get_quarantined_callback(
        &self,
        request: Request<proto::GetQuarantinedCallbackRequest>,
    ) -> Reply<proto::GetQuarantinedCallbackResponse> {
        require_everywhere(&request)?;
        let callback = quarantine::get(&self.quarantine, request.into_inner().id).await?;
        Ok(Response::new(proto::GetQuarantinedCallbackResponse { callback: Some(callback) }))
    }

    async fn replay_quarantined_callbacks(
        &self,
        request: Request<proto::ReplayQuarantinedCallbacksRequest>,
    ) -> Reply<proto::ReplayQuarantinedCallbacksResponse> {
        let audit = require_everywhere(&request)?;
        let target = request.into_inner().parse()?;
        let replayed = quarantine::replay(&self.quarantine, target);
        let replayed = audited(&audit, "replay_quarantined_callbacks", target, replayed).await?;
        Ok(Response::new(replayed))
    }

    async fn drop_quarantined_callback(
        &self,
        request: Request<proto::DropQuarantinedCallbackRequest>,
    ) -> Reply<proto::DropQuarantinedCallbackResponse> {
        let audit = require_everywhere(&request)?;
        let id = request.into_inner().id;
        let dropped = quarantine::drop_one(&self.quarantine, id);
        audited(&audit, "drop_quarantined_callback", Some(id), dropped).await?;
        Ok(Response::new(proto::DropQuarantinedCallbackResponse {}))
    }
}
