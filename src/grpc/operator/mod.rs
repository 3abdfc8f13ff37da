//! The handlers of `OperatorService`, for the people who run the gateway.

mod pauses;
mod quarantine;

use std::{iter::zip, sync::Arc, time::Duration};

use axum::{Extension, Router};
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status, server::NamedService as _};

use crate::{
    access::Caller,
    callbacks::Quarantine,
    dispatch::Pauses,
    domain::{
        clock::{Clock, Timestamp},
        newtypes::AccountName,
        state::ChangeState,
        violation::{FieldReason, Violations},
    },
    grpc::{
        access::caller,
        admission::concurrency::MAX_SMALL_MESSAGE,
        error::{ApiError, reason::ErrorReason},
        generated::stub::operator_service_server::{OperatorService, OperatorServiceServer},
        middleware::{Layers, with_layers},
    },
    journal::Journal,
    proto,
    telemetry::LogFilter,
    thingspace::ThingSpace,
};

/// Range of the duration of a log filter.
const MIN_LOG_FILTER_DURATION: Duration = Duration::from_secs(1);
const MAX_LOG_FILTER_DURATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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
}

type Reply<T> = Result<Response<T>, Status>;

impl Operator {
    /// Returns a router with this service alone, for the admin socket.
    pub fn into_router(self) -> Router {
        let service = OperatorServiceServer::new(self).max_decoding_message_size(MAX_SMALL_MESSAGE);
        let path = format!("/{}/{{*method}}", OperatorServiceServer::<Self>::NAME);
        let router = Router::new().route_service(&path, service);
        with_layers(router.layer(Extension(Caller::local())), Layers::default())
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

    /// Applies a log filter. Returns the one in effect.
    fn apply_log_filter(&self, request: &proto::SetLogFilterRequest) -> Result<String, ApiError> {
        let range = MIN_LOG_FILTER_DURATION..=MAX_LOG_FILTER_DURATION;
        let duration = match request.duration.map(Duration::try_from) {
            None => None,
            Some(Ok(duration)) if range.contains(&duration) => Some(duration),
            Some(_) => {
                let description = "must be from 1 second to 7 days";
                return Err(ApiError::invalid_field("duration", FieldReason::Value, description));
            }
        };
        self.log_filter.set(&request.filter, duration).map_err(|_invalid| {
            let description = "is not a list of directives of tracing's EnvFilter, such as \
                               `info,thingspace_gateway=debug`";
            ApiError::invalid_field("filter", FieldReason::Format, description)
        })?;
        let (filter, _end) = self.log_filter.current();
        tracing::warn!(filter, ?duration, "operator changed the log filter");
        Ok(filter)
    }
}

/// Checks that the caller may operate on all accounts.
fn require_everywhere<T>(request: &Request<T>) -> Result<(), ApiError> {
    Ok(caller(request.extensions())?.require_operate_everywhere()?)
}

/// Parses an optional account. `None` stands for all accounts.
fn parse_account(name: &str) -> Result<Option<AccountName>, ApiError> {
    if name.is_empty() {
        return Ok(None);
    }
    let mut violations = Violations::default();
    let account = violations.ok_or_add("account_name", AccountName::parse(name));
    violations.into_result(account).map(Some).map_err(ApiError::invalid_fields)
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Reply<proto::GetStatusResponse> {
        require_everywhere(&request)?;
        let (log_filter, end) = self.log_filter.current();
        Ok(Response::new(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serving: *self.serving.borrow(),
            leader: *self.is_leader.borrow(),
            change_counts: self.change_counts(),
            pauses: self.pauses.list().iter().map(pauses::to_proto).collect(),
            log_filter,
            log_filter_end_time: end.map(|end| self.to_timestamp(end).into()),
        }))
    }

    async fn pause_changes(
        &self,
        request: Request<proto::PauseChangesRequest>,
    ) -> Reply<proto::PauseChangesResponse> {
        let caller = caller(request.extensions())?;
        let pause = pauses::pause(&self.pauses, &caller, request.into_inner()).await?;
        Ok(Response::new(proto::PauseChangesResponse { pause: Some(pause) }))
    }

    async fn resume_changes(
        &self,
        request: Request<proto::ResumeChangesRequest>,
    ) -> Reply<proto::ResumeChangesResponse> {
        let caller = caller(request.extensions())?;
        let resumed = pauses::resume(&self.pauses, &caller, &request.into_inner()).await?;
        Ok(Response::new(proto::ResumeChangesResponse { resumed }))
    }

    async fn reset_lockout(
        &self,
        request: Request<proto::ResetLockoutRequest>,
    ) -> Reply<proto::ResetLockoutResponse> {
        require_everywhere(&request)?;
        let reset = self.thingspace.reset_lockout().await;
        reset.map_err(|error| ApiError::new(ErrorReason::JournalUnavailable, error))?;
        tracing::warn!("operator reset the log-in lock-out");
        Ok(Response::new(proto::ResetLockoutResponse {}))
    }

    async fn set_log_filter(
        &self,
        request: Request<proto::SetLogFilterRequest>,
    ) -> Reply<proto::SetLogFilterResponse> {
        require_everywhere(&request)?;
        let filter = self.apply_log_filter(&request.into_inner())?;
        Ok(Response::new(proto::SetLogFilterResponse { filter }))
    }

    async fn list_quarantined_callbacks(
        &self,
        request: Request<proto::ListQuarantinedCallbacksRequest>,
    ) -> Reply<proto::ListQuarantinedCallbacksResponse> {
        require_everywhere(&request)?;
        let callbacks = quarantine::list(&self.quarantine, &request.into_inner()).await?;
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
        require_everywhere(&request)?;
        let replayed = quarantine::replay(&self.quarantine, &request.into_inner()).await?;
        Ok(Response::new(replayed))
    }

    async fn drop_quarantined_callback(
        &self,
        request: Request<proto::DropQuarantinedCallbackRequest>,
    ) -> Reply<proto::DropQuarantinedCallbackResponse> {
        require_everywhere(&request)?;
        quarantine::drop_one(&self.quarantine, request.into_inner().id).await?;
        Ok(Response::new(proto::DropQuarantinedCallbackResponse {}))
    }
}
