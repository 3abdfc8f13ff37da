//! The handlers of `GatewayService`.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use crate::grpc::{
    admission::byte_budget::Permit,
    error::{ApiError, Executed, reason::ErrorReason, refusal_error},
    middleware::{CallDeadline, deadline_exceeded},
};
use crate::grpc::{
    convert::{change_to_proto, plan_to_proto},
    list,
    selector::{AllowedSelectors, SelectorFields},
    stub::gateway_service_server::GatewayService,
};
use crate::{
    dispatch::{CallContext, Dispatcher},
    domain::{
        change::Change,
        clock::Clock,
        newtypes::{AccountName, ChangeId, RequestId},
        trace::TraceParent,
        violation::{FieldPath, FieldReason, Violations},
    },
    journal::{ChangeSelector, Journal, WatchTarget},
    operations::{
        ChangeRequest, RpcOperation, ValidationRules, esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange, service_plan::ServicePlanChange,
    },
    proto,
    telemetry::RpcSpan,
    thingspace::ThingSpace,
    watch::{self, EncodedResponse, ResumeToken, Until, Watch, Watches},
};

/// Implements `GatewayService`.
pub struct Gateway {
    journal: Arc<dyn Journal>,
    dispatcher: Arc<Dispatcher>,
    watches: Arc<Watches>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    validation_rules: ValidationRules,
    server_info: ServerInfo,
}

/// The journal's part of `GetServerInfo`.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// Database that stores the journal.
    pub journal_engine: &'static str,
    /// Origin of the journal: `sandbox`, or the host of ThingSpace.
    pub journal_origin: String,
}

/// A call of an operation's RPC.
type Call<O> = Request<<O as RpcOperation>::Request>;

/// The reply to a call of an operation's RPC.
type Reply<O> = Result<Response<<O as RpcOperation>::Response>, Status>;

/// The stream of a watch.
type WatchResponseStream = Pin<Box<dyn Stream<Item = Result<EncodedResponse, Status>> + Send>>;

/// A call's extensions, which the middleware sets.
struct RequestContext {
    span: Option<RpcSpan>,
    deadline: Option<CallDeadline>,
    /// Bytes that the message reserves until it is validated.
    permit: Option<Permit>,
}

impl RequestContext {
    fn from_extensions(extensions: &tonic::Extensions) -> Self {
        Self {
            span: extensions.get().cloned(),
            deadline: extensions.get().copied(),
            permit: extensions.get().cloned(),
        }
    }
}

impl Gateway {
    /// Creates the service.
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
            dispatcher: submit,
            watches,
            thingspace,
            clock,
            validation_rules: limits,
            server_info,
        }
    }

    /// Handles the RPC of an operation.
    async fn change<O: RpcOperation>(&self, call: Call<O>) -> Reply<O> {
        let mut context = RequestContext::from_extensions(call.extensions());
        let (request, rules) = (call.into_inner(), self.validation_rules);
        let permit = context.permit.take();
        let validated = run_blocking(move || {
            let _held_until_validated = permit;
            O::validate(request, rules)
        });
        let request = validated.await?.map_err(|violations| {
            ApiError::invalid_fields(violations).with_executed(Executed::No)
        })?;
        let (change, warnings) = self.submit(request, context).await?;
        Ok(Response::new(O::response(change, warnings)))
    }

    /// Checks a valid request with `validate_only`; otherwise submits it and waits for the response of
    /// ThingSpace.
    async fn submit(
        &self,
        mut request: ChangeRequest,
        context: RequestContext,
    ) -> Result<(proto::Change, Vec<String>), ApiError> {
        let warnings = std::mem::take(&mut request.warnings);
        if request.validate_only {
            let request = self.dispatcher.dry_run(request).await?;
            return Ok((self.preview(&request), warnings));
        }
        let traceparent = context.span.as_ref().and_then(RpcSpan::traceparent);
        let caller = CallContext {
            trace: traceparent.and_then(|text| TraceParent::parse(&text)),
            deadline: context.deadline.map(|CallDeadline(deadline)| deadline),
        };
        let change = self.dispatcher.submit(request, caller).await?;
        if let Some(span) = context.span {
            let request_id = change.request_ids.first().map(RequestId::as_str);
            span.set_change(&change.change_id.to_string(), request_id);
        }
        match refusal_error(&change) {
            Some(error) => Err(error),
            None => Ok((change_to_proto(&change), warnings)),
        }
    }

    /// Returns the change that the request would create, without an ID and a state.
    fn preview(&self, change_request: &ChangeRequest) -> proto::Change {
        let now = self.clock.now();
        proto::Change {
            change_id: String::new(),
            state: proto::ChangeState::Unspecified.into(),
            create_time: None,
            update_time: None,
            ..change_to_proto(&change_request.to_change(ChangeId::new(now), now))
        }
    }

    async fn find_change(&self, name: ChangeSelector) -> Result<Change, ApiError> {
        let change = self.journal.change(name).await?;
        change.ok_or_else(ApiError::change_not_found)
    }

    /// Parses the request and opens the watch.
    async fn open_watch(&self, request: proto::WatchRequestRequest) -> Result<Watch, ApiError> {
        let until = match proto::Until::try_from(request.until) {
            Ok(proto::Until::Unspecified | proto::Until::Settled) => Until::Settled,
            Ok(proto::Until::Finished) => Until::Finished,
            Ok(proto::Until::CaughtUp) => Until::CaughtUp,
            Err(_) => {
                let description = "is not a value of this enum";
                return Err(ApiError::invalid_field("until", FieldReason::Value, description));
            }
        };
        let token = match request.resume_token.as_str() {
            "" => None,
            text => Some(ResumeToken::decode(text).map_err(|error| {
                ApiError::new(ErrorReason::ResumeTokenInvalid, format!("resume_token: {error}"))
            })?),
        };
        let names = SelectorFields {
            change_id: &request.change_id,
            request_id: &request.request_id,
            account_name: &request.account_name,
            idempotency_key: &request.idempotency_key,
            selectors: AllowedSelectors::All,
        };
        let target = match names.parse()? {
            None => None,
            Some(ChangeSelector::Id(id)) => Some(WatchTarget::Change(id)),
            Some(ChangeSelector::Request(id)) => Some(WatchTarget::Request(id)),
            Some(by_key) => Some(WatchTarget::Change(self.find_change(by_key).await?.change_id)),
        };
        let request =
            watch::WatchOptions { target, token, until, include_raw: request.include_raw };
        Ok(self.watches.open(request).await?)
    }
}

/// Validates a request on a blocking thread: up to 10,000 devices would delay other calls.
async fn run_blocking<T: Send + 'static>(
    validate: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let validated = tokio::task::spawn_blocking(validate).await;
    validated.map_err(|_panic| {
        let message = "internal error";
        ApiError::new(ErrorReason::Internal, message).with_executed(Executed::Unknown)
    })
}

/// Returns the next response of a watch, or DEADLINE_EXCEEDED as its last one.
async fn next_response(
    watch: Option<Watch>,
    deadline: Option<CallDeadline>,
) -> Option<(Result<EncodedResponse, Status>, Option<Watch>)> {
    let mut watch = watch?;
    let response = match deadline {
        Some(CallDeadline(deadline)) => match timeout_at(deadline, watch.next()).await {
            Ok(response) => response?,
            Err(_elapsed) => return Some((Err(deadline_exceeded().into_status()), None)),
        },
        None => watch.next().await?,
    };
    let response = response.map_err(|error| ApiError::from(error).into_status());
    Some((response, Some(watch)))
}

#[tonic::async_trait]
impl GatewayService for Gateway {
    async fn change_esim_plan(&self, call: Call<EsimPlanChange>) -> Reply<EsimPlanChange> {
        self.change::<EsimPlanChange>(call).await
    }

    async fn change_five_g_bi_plan(
        &self,
        call: Call<FiveGBiPlanChange>,
    ) -> Reply<FiveGBiPlanChange> {
        self.change::<FiveGBiPlanChange>(call).await
    }

    async fn change_service_plan(&self, call: Call<ServicePlanChange>) -> Reply<ServicePlanChange> {
        self.change::<ServicePlanChange>(call).await
    }

    type WatchRequestStream = WatchResponseStream;

    async fn watch_request(
        &self,
        request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<WatchResponseStream>, Status> {
        let deadline = request.extensions().get::<CallDeadline>().copied();
        let watch = self.open_watch(request.into_inner()).await?;
        // hyper polls the stream at the pace of its client.
        let responses = stream::unfold(Some(watch), move |watch| next_response(watch, deadline));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn get_change(
        &self,
        request: Request<proto::GetChangeRequest>,
    ) -> Result<Response<proto::GetChangeResponse>, Status> {
        let request = request.into_inner();
        let names = SelectorFields {
            change_id: &request.change_id,
            request_id: &request.request_id,
            account_name: &request.account_name,
            idempotency_key: &request.idempotency_key,
            selectors: AllowedSelectors::All,
        };
        let change = self.find_change(names.parse_required()?).await?;
        Ok(Response::new(proto::GetChangeResponse { change: Some(change_to_proto(&change)) }))
    }

    async fn list_changes(
        &self,
        request: Request<proto::ListChangesRequest>,
    ) -> Result<Response<proto::ListChangesResponse>, Status> {
        let page = list::list_changes(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_devices(
        &self,
        request: Request<proto::ListDevicesRequest>,
    ) -> Result<Response<proto::ListDevicesResponse>, Status> {
        let page = list::list_devices(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_service_plans(
        &self,
        request: Request<proto::ListServicePlansRequest>,
    ) -> Result<Response<proto::ListServicePlansResponse>, Status> {
        let account = AccountName::parse(request.into_inner().account_name);
        let mut violations = Violations::default();
        let account = violations.ok_or_add(FieldPath::root("account_name"), account);
        let account = violations.into_result(account).map_err(ApiError::invalid_fields)?;
        let plans = self.thingspace.service_plans(&account).await;
        let plans = plans.map_err(ApiError::from)?;
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
        let page = list::list_device_results(&*self.journal, request.into_inner()).await?;
        Ok(Response::new(page))
    }
}
