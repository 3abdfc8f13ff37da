//! The handlers of `GatewayService`.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use super::{
    convert::{change_to_proto, esim_draft, five_g_bi_draft, plan_to_proto},
    list,
    lookup::{Names, Selectors},
    stub::gateway_service_server::GatewayService,
};
use crate::grpc::{
    admission::byte_budget::Held,
    error::{Executed, Failure, reason::Reason, refused},
    middleware::{Deadline, deadline_passed},
};
use crate::{
    dispatch::{CallContext, Dispatcher},
    domain::{
        change::{Change, ChangeRequest},
        clock::Clock,
        newtypes::{AccountName, ChangeId, RequestId},
        trace::TraceParent,
        validator::ValidationRules,
        violation::{FieldPath, FieldReason, Violation, Violations},
    },
    journal::{ChangeSelector, Journal, WatchTarget},
    proto,
    telemetry::RpcSpan,
    thingspace::ThingSpace,
    watch::{self, Frame, Token, Until, Watch, Watches},
};

/// Serves `GatewayService`.
pub struct Gateway {
    journal: Arc<dyn Journal>,
    submit: Arc<Dispatcher>,
    watches: Arc<Watches>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    limits: ValidationRules,
    server_info: ServerInfo,
}

/// The part of GetServerInfo about the journal.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The database that stores the journal.
    pub journal_engine: &'static str,
    /// The ThingSpace that the journal belongs to.
    pub journal_origin: String,
}

/// The stream of a watch.
type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// What the layers know of a call.
struct Call {
    span: Option<RpcSpan>,
    deadline: Option<Deadline>,
    /// The room that its message takes.
    held: Option<Held>,
}

// === impl Call ===

impl Call {
    fn of(extensions: &tonic::Extensions) -> Self {
        Self {
            span: extensions.get().cloned(),
            deadline: extensions.get().copied(),
            held: extensions.get().cloned(),
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// The service over its parts.
    pub fn new(
        journal: Arc<dyn Journal>,
        submit: Arc<Dispatcher>,
        watches: Arc<Watches>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        limits: ValidationRules,
        server_info: ServerInfo,
    ) -> Self {
        Self {
            journal,
            submit,
            watches,
            thingspace,
            clock,
            limits,
            server_info,
        }
    }

    /// What both change calls do once their fields are read.
    async fn change(
        &self,
        demand: Result<ChangeRequest, Vec<Violation>>,
        validate_only: bool,
        call: Call,
    ) -> Result<(proto::Change, Vec<String>), Failure> {
        let mut demand = demand.map_err(|wrong| Failure::fields(wrong).executed(Executed::No))?;
        let warnings = std::mem::take(&mut demand.warnings);
        if validate_only {
            let demand = self.submit.dry_run(demand).await?;
            return Ok((self.preview(&demand), warnings));
        }
        let traceparent = call.span.as_ref().and_then(RpcSpan::traceparent);
        let caller = CallContext {
            trace: traceparent.and_then(|text| TraceParent::parse(&text)),
            deadline: call.deadline.map(|Deadline(deadline)| deadline),
        };
        let change = self.submit.submit(demand, caller).await?;
        if let Some(span) = call.span {
            let request_id = change.request_ids.first().map(RequestId::as_str);
            span.set_change(&change.change_id.to_string(), request_id);
        }
        match refused(&change) {
            Some(failure) => Err(failure),
            None => Ok((change_to_proto(&change), warnings)),
        }
    }

    /// The change as it would be, without a name or a state.
    fn preview(&self, demand: &ChangeRequest) -> proto::Change {
        let now = self.clock.now();
        proto::Change {
            change_id: String::new(),
            state: proto::ChangeState::Unspecified.into(),
            create_time: None,
            update_time: None,
            ..change_to_proto(&demand.to_change(ChangeId::new(now), now))
        }
    }

    async fn find(&self, name: ChangeSelector) -> Result<Change, Failure> {
        let change = self.journal.change(name).await?;
        change.ok_or_else(Failure::not_found)
    }

    /// What a watch is asked for.
    async fn watch(&self, request: proto::WatchRequestRequest) -> Result<Watch, Failure> {
        let until = match proto::Until::try_from(request.until) {
            Ok(proto::Until::Unspecified | proto::Until::Settled) => Until::Settled,
            Ok(proto::Until::Finished) => Until::Finished,
            Ok(proto::Until::CaughtUp) => Until::CaughtUp,
            Err(_) => {
                let why = "is not a value of this enum";
                return Err(Failure::field("until", FieldReason::Value, why));
            }
        };
        let token = match request.resume_token.as_str() {
            "" => None,
            text => Some(Token::decode(text).map_err(|error| {
                Failure::new(Reason::ResumeTokenInvalid, format!("resume_token: {error}"))
            })?),
        };
        let names = Names {
            change_id: &request.change_id,
            request_id: &request.request_id,
            account_name: &request.account_name,
            idempotency_key: &request.idempotency_key,
            selectors: Selectors::All,
        };
        let target = match names.read()? {
            None => None,
            Some(ChangeSelector::Id(id)) => Some(WatchTarget::Change(id)),
            Some(ChangeSelector::Request(id)) => Some(WatchTarget::Request(id)),
            Some(by_key) => Some(WatchTarget::Change(self.find(by_key).await?.change_id)),
        };
        let request = watch::Request {
            target,
            token,
            until,
            include_raw: request.include_raw,
        };
        Ok(self.watches.open(request).await?)
    }
}

/// Goes through a request of up to 10,000 devices off the threads that serve
/// everybody else.
async fn off_thread<T: Send + 'static>(
    validate: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let validated = tokio::task::spawn_blocking(validate).await;
    validated.map_err(|_panic| {
        let why = "a fault of the gateway";
        Failure::new(Reason::Internal, why).executed(Executed::Unknown)
    })
}

/// The next frame of a watch; no more once its caller's deadline has passed.
async fn next_frame(
    watch: Option<Watch>,
    deadline: Option<Deadline>,
) -> Option<(Result<Frame, Status>, Option<Watch>)> {
    let mut watch = watch?;
    let frame = match deadline {
        Some(Deadline(deadline)) => match timeout_at(deadline, watch.next()).await {
            Ok(frame) => frame?,
            Err(_elapsed) => return Some((Err(deadline_passed().into_status()), None)),
        },
        None => watch.next().await?,
    };
    let frame = frame.map_err(|error| Failure::from(error).into_status());
    Some((frame, Some(watch)))
}

#[tonic::async_trait]
impl GatewayService for Gateway {
    async fn change_esim_plan(
        &self,
        request: Request<proto::ChangeEsimPlanRequest>,
    ) -> Result<Response<proto::ChangeEsimPlanResponse>, Status> {
        let mut call = Call::of(request.extensions());
        let (request, limits) = (request.into_inner(), self.limits);
        let (validate_only, held) = (request.validate_only, call.held.take());
        let demand = off_thread(move || {
            let _until_validated = held;
            esim_draft(request).validate(limits)
        });
        let demand = demand.await?;
        let (change, warnings) = self.change(demand, validate_only, call).await?;
        Ok(Response::new(proto::ChangeEsimPlanResponse {
            change: Some(change),
            warnings,
        }))
    }

    async fn change_five_g_bi_plan(
        &self,
        request: Request<proto::ChangeFiveGBiPlanRequest>,
    ) -> Result<Response<proto::ChangeFiveGBiPlanResponse>, Status> {
        let mut call = Call::of(request.extensions());
        let (request, limits) = (request.into_inner(), self.limits);
        let (validate_only, held) = (request.validate_only, call.held.take());
        let demand = off_thread(move || {
            let _until_validated = held;
            five_g_bi_draft(request).validate(limits)
        });
        let demand = demand.await?;
        let (change, warnings) = self.change(demand, validate_only, call).await?;
        Ok(Response::new(proto::ChangeFiveGBiPlanResponse {
            change: Some(change),
            warnings,
        }))
    }

    type WatchRequestStream = FrameStream;

    async fn watch_request(
        &self,
        request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<FrameStream>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let watch = self.watch(request.into_inner()).await?;
        // Polled only as fast as the client takes what it yields.
        let frames = stream::unfold(Some(watch), move |watch| next_frame(watch, deadline));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn get_change(
        &self,
        request: Request<proto::GetChangeRequest>,
    ) -> Result<Response<proto::GetChangeResponse>, Status> {
        let request = request.into_inner();
        let names = Names {
            change_id: &request.change_id,
            request_id: &request.request_id,
            account_name: &request.account_name,
            idempotency_key: &request.idempotency_key,
            selectors: Selectors::All,
        };
        let change = self.find(names.require()?).await?;
        Ok(Response::new(proto::GetChangeResponse {
            change: Some(change_to_proto(&change)),
        }))
    }

    async fn list_changes(
        &self,
        request: Request<proto::ListChangesRequest>,
    ) -> Result<Response<proto::ListChangesResponse>, Status> {
        let page = list::changes(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_devices(
        &self,
        request: Request<proto::ListDevicesRequest>,
    ) -> Result<Response<proto::ListDevicesResponse>, Status> {
        let page = list::devices(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_service_plans(
        &self,
        request: Request<proto::ListServicePlansRequest>,
    ) -> Result<Response<proto::ListServicePlansResponse>, Status> {
        let account = AccountName::parse(request.into_inner().account_name);
        let mut violations = Violations::default();
        let account = violations.ok_or_add(FieldPath::root("account_name"), account);
        let account = violations.into_result(account).map_err(Failure::fields)?;
        let plans = self.thingspace.service_plans(&account).await;
        let plans = plans.map_err(Failure::from)?;
        Ok(Response::new(proto::ListServicePlansResponse {
            service_plans: plans.into_iter().map(plan_to_proto).collect(),
        }))
    }

    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::GetServerInfoResponse>, Status> {
        Ok(Response::new(proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            journal_engine: self.server_info.journal_engine.to_owned(),
            journal_durability: proto::Durability::Synced.into(),
            journal_origin: self.server_info.journal_origin.clone(),
        }))
    }

    async fn list_device_results(
        &self,
        request: Request<proto::ListDeviceResultsRequest>,
    ) -> Result<Response<proto::ListDeviceResultsResponse>, Status> {
        let page = list::device_results(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }
}
