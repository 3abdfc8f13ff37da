//! The handlers of `GatewayService`.

use std::{mem::take, sync::Arc};

use tokio::{task::spawn_blocking, time::Instant};
use tonic::{Extensions, Request, Response, Status};

use crate::{
    access::{AccessControl, Caller, policy::Permission},
    audit::AuditLog,
    dispatch::{CallContext, DispatchError, Dispatcher},
    domain::{
        clock::Clock,
        newtypes::{ChangeId, RequestId},
        trace::TraceParent,
    },
    grpc::{
        access::{self, WatchAccess},
        admission::byte_budget::ByteBudget,
        call_audit::{CallAudit, executed_of},
        convert::{caller_to_proto, change_to_proto, plan_to_proto},
        error::{ApiError, Executed, reason::ErrorReason, refusal_error},
        generated::stub::gateway_service_server::GatewayService,
        list,
        message::{AccountWatchFields, RequestMessage as _, WatchFields},
        middleware::CallDeadline,
        visibility::Visibility,
        watch_body::{self, NoMessages},
    },
    journal::{ChangeSelector, Journal, WatchTarget},
    operations::{
        ChangeRequest, RpcOperation, ValidationRules, esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange, service_plan::ServicePlanChange,
    },
    proto,
    shares::{CallerTurns, Turn},
    telemetry::RpcSpan,
    thingspace::ThingSpace,
    watch::{StreamAccess, Watch, WatchOptions, Watches},
};

/// Maximum size of a message that is validated without a change of threads, in bytes: 0.1 ms of work.
const MAX_INLINE_BYTES: usize = 16 * 1024;

/// Maximum number of lists that the journal reads for one caller at a time: half of its readers.
pub const LISTS_OF_CALLER: usize = 2;

/// Implements `GatewayService`.
pub struct Gateway {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) thingspace: Arc<ThingSpace>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) validation_rules: ValidationRules,
    pub(crate) access: Arc<AccessControl>,
    pub(crate) audit: AuditLog,
    pub(crate) list_turns: CallerTurns,
}

/// A call of an operation's RPC.
type Call<O> = Request<<O as RpcOperation>::Request>;

/// The reply to a call of an operation's RPC.
type Reply<O> = Result<Response<<O as RpcOperation>::Response>, Status>;

impl Gateway {
    /// Handles the RPC of an operation.
    async fn change<O: RpcOperation>(&self, call: Call<O>) -> Reply<O> {
        let (_metadata, mut extensions, message) = call.into_parts();
        let (caller, audit) = access::caller(&extensions)?;
        let budget: Option<Arc<ByteBudget>> = extensions.remove();
        let rules = self.validation_rules;
        let is_small = budget.as_ref().is_some_and(|budget| budget.bytes() <= MAX_INLINE_BYTES);
        let validate = move || {
            let _held_until_validated = budget;
            O::validate(message, rules)
        };
        let validated = if is_small {
            validate()
        } else {
            // On a blocking thread: up to 10,000 devices would delay other calls.
            spawn_blocking(validate).await.map_err(|_panic| {
                let error = ApiError::new(ErrorReason::Internal, "internal error");
                error.with_executed(Executed::Unknown)
            })?
        };
        let request = validated.map_err(|violations| {
            ApiError::invalid_fields(violations).with_executed(Executed::No)
        })?;
        audit.set_request(&request);
        let denied =
            caller.require(Permission::Change, &request.account, Some(request.change_type()));
        denied.map_err(|error| ApiError::from(error).with_executed(Executed::Unknown))?;
        if !request.validate_only {
            let begun = audit.begin().await;
            begun.map_err(|error| error.with_executed(Executed::Unknown))?;
        }
        let submitted = self.submit(&caller, request, &extensions).await;
        let executed = submitted.as_ref().ok().map(|(change, _)| executed_of(change));
        audit.end(&submitted, executed).await;
        let (change, warnings) = submitted?;
        Ok(Response::new(O::response(change, warnings)))
    }

    /// Submits a valid request and waits for the response of ThingSpace. With `validate_only`, returns the change
    /// that the request would create, without an ID and a state.
    async fn submit(
        &self,
        caller: &Caller,
        mut request: ChangeRequest,
        extensions: &Extensions,
    ) -> Result<(proto::Change, Vec<String>), ApiError> {
        let warnings = take(&mut request.warnings);
        if request.validate_only {
            let request = self.dispatcher.dry_run(request).await;
            let request = match request {
                Ok(request) => request,
                Err(error) => return Err(self.dispatch_error(caller, error).await),
            };
            let now = self.clock.now();
            let preview = proto::Change {
                change_id: String::new(),
                state: proto::ChangeState::Unspecified.into(),
                create_time: None,
                update_time: None,
                ..change_to_proto(&request.to_change(ChangeId::new(now), now))
            };
            return Ok((preview, warnings));
        }
        let span = extensions.get::<RpcSpan>();
        let traceparent = span.and_then(RpcSpan::traceparent);
        let context = CallContext {
            trace: traceparent.and_then(|text| TraceParent::parse(&text)),
            deadline: call_deadline(extensions),
            caller: caller.name().clone(),
        };
        let audit = CallAudit::of(extensions);
        let claimed = |change_id| audit.set_claimed(change_id);
        let change = match self.dispatcher.submit(request, context, claimed).await {
            Ok(change) => change,
            Err(error) => return Err(self.dispatch_error(caller, error).await),
        };
        if let Some(span) = span {
            let request_id = change.request_ids.first().map(RequestId::as_str);
            span.set_change(&change.change_id.to_string(), request_id);
        }
        match refusal_error(&change) {
            Some(error) => Err(error),
            None => Ok((change_to_proto(&change), warnings)),
        }
    }

    /// Returns the error of a call. It names another change only to a caller that may see this change.
    async fn dispatch_error(&self, caller: &Caller, error: DispatchError) -> ApiError {
        let Some(change_id) = error.existing_change() else {
            return error.into();
        };
        let selector = ChangeSelector::Id(change_id);
        let is_visible = caller.is_unrestricted()
            || self.visibility(caller, Permission::List).change(selector).await.is_ok();
        let error = ApiError::from(error);
        if is_visible { error } else { error.without_metadata("change_id") }
    }

    /// Returns the visibility of changes for a caller with a permission.
    fn visibility<'a>(&'a self, caller: &'a Caller, permission: Permission) -> Visibility<'a> {
        Visibility { journal: &*self.journal, caller, permission }
    }

    /// Waits until fewer than [`LISTS_OF_CALLER`] lists are being read for the caller. A list can scan thousands of
    /// rows, so the lists of one caller must not occupy all readers of the journal. Without a policy, all clients are
    /// one caller, and nothing waits.
    async fn list_turn(&self, caller: &Caller) -> Option<Turn> {
        if caller.is_unrestricted() {
            return None;
        }
        Some(self.list_turns.acquire(caller.name()).await)
    }

    /// Returns the access of a caller to a stream. Checks that the caller may see the target now.
    async fn watch_access(
        &self,
        (caller, extensions): (&Caller, &Extensions),
        target: &WatchTarget,
    ) -> Result<Option<Arc<dyn StreamAccess>>, ApiError> {
        if caller.is_unrestricted() {
            return Ok(None);
        }
        let account = self.visibility(caller, Permission::Watch).account_of(target).await?;
        CallAudit::of(extensions).set_account(account.as_ref());
        let (control, clock) = (Arc::clone(&self.access), Arc::clone(&self.clock));
        Ok(Some(WatchAccess::new(control, clock, caller.clone(), extensions, account)))
    }

    /// Parses the request and opens the watch.
    async fn open_watch(
        &self,
        call: Request<proto::WatchRequestRequest>,
    ) -> Result<Watch, ApiError> {
        let (_metadata, extensions, request) = call.into_parts();
        let ((caller, audit), deadline) =
            (access::caller(&extensions)?, call_deadline(&extensions));
        let include_raw = request.include_raw;
        let WatchFields { selector, token, until } = request.parse()?;
        let target = match selector {
            None => None,
            Some(ChangeSelector::Id(id)) => Some(WatchTarget::Change(id)),
            Some(ChangeSelector::Request(id)) => Some(WatchTarget::Request(id)),
            Some(by_key) => {
                let visible = self.visibility(&caller, Permission::Watch);
                Some(WatchTarget::Change(visible.change(by_key).await?.change_id))
            }
        };
        let access = match target.as_ref().or(token.as_ref().map(|token| &token.target)) {
            Some(target) => self.watch_access((&caller, &extensions), target).await?,
            None => None,
        };
        let options = WatchOptions { target, token, until, include_raw, deadline, access };
        let watch = self.watches.open(options).await?;
        audit.open_stream();
        Ok(watch)
    }

    /// Parses the request and opens the watch of an account.
    async fn open_account_watch(
        &self,
        call: Request<proto::WatchAccountRequest>,
    ) -> Result<Watch, ApiError> {
        let (_metadata, extensions, request) = call.into_parts();
        let ((caller, audit), deadline) =
            (access::caller(&extensions)?, call_deadline(&extensions));
        let include_raw = request.include_raw;
        let AccountWatchFields { account, token, until } = request.parse()?;
        let target = WatchTarget::Account(account);
        let access = self.watch_access((&caller, &extensions), &target).await?;
        let target = Some(target);
        let options = WatchOptions { target, token, until, include_raw, deadline, access };
        let watch = self.watches.open(options).await?;
        audit.open_stream();
        Ok(watch)
    }
}

/// Returns the deadline of a call.
fn call_deadline(extensions: &Extensions) -> Option<Instant> {
    extensions.get().map(|CallDeadline(deadline)| *deadline)
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

    type WatchRequestStream = NoMessages<proto::WatchRequestResponse>;

    async fn watch_request(
        &self,
        request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<Self::WatchRequestStream>, Status> {
        Ok(watch_body::response(self.open_watch(request).await?))
    }

    type WatchAccountStream = NoMessages<proto::WatchAccountResponse>;

    async fn watch_account(
        &self,
        request: Request<proto::WatchAccountRequest>,
    ) -> Result<Response<Self::WatchAccountStream>, Status> {
        Ok(watch_body::response(self.open_account_watch(request).await?))
    }

    async fn get_change(
        &self,
        request: Request<proto::GetChangeRequest>,
    ) -> Result<Response<proto::GetChangeResponse>, Status> {
        let (caller, audit) = access::caller(request.extensions())?;
        let selector = request.into_inner().parse()?;
        let change = self.visibility(&caller, Permission::List).change(selector).await?;
        audit.set_change(change.change_id, &change.account);
        Ok(Response::new(proto::GetChangeResponse { change: Some(change_to_proto(&change)) }))
    }

    async fn list_changes(
        &self,
        request: Request<proto::ListChangesRequest>,
    ) -> Result<Response<proto::ListChangesResponse>, Status> {
        let (caller, audit) = access::caller(request.extensions())?;
        let visible = self.visibility(&caller, Permission::List);
        let _turn = self.list_turn(&caller).await;
        let page = list::list_changes(&visible, &audit, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_devices(
        &self,
        request: Request<proto::ListDevicesRequest>,
    ) -> Result<Response<proto::ListDevicesResponse>, Status> {
        let (caller, audit) = access::caller(request.extensions())?;
        let visible = self.visibility(&caller, Permission::List);
        let _turn = self.list_turn(&caller).await;
        let page = list::list_devices(&visible, &audit, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn list_service_plans(
        &self,
        request: Request<proto::ListServicePlansRequest>,
    ) -> Result<Response<proto::ListServicePlansResponse>, Status> {
        let (caller, audit) = access::caller(request.extensions())?;
        let account = request.into_inner().parse()?;
        audit.set_account(Some(&account));
        caller.require(Permission::List, &account, None).map_err(ApiError::from)?;
        let name = (!caller.is_unrestricted()).then(|| caller.name());
        let plans = self.thingspace.service_plans(&account, name).await.map_err(ApiError::from)?;
        Ok(Response::new(proto::ListServicePlansResponse {
            service_plans: plans.into_iter().map(plan_to_proto).collect(),
        }))
    }

    async fn get_server_info(
        &self,
        request: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::GetServerInfoResponse>, Status> {
        let (caller, _audit) = access::caller(request.extensions())?;
        let journal = self.journal.info();
        Ok(Response::new(proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            journal_engine: journal.engine.to_owned(),
            journal_durability: proto::Durability::from(journal.durability).into(),
            journal_origin: self.journal.origin().as_str().to_owned(),
            journal_database_settings: journal.database_settings,
            caller: Some(caller_to_proto(&caller)),
        }))
    }

    async fn list_device_results(
        &self,
        request: Request<proto::ListDeviceResultsRequest>,
    ) -> Result<Response<proto::ListDeviceResultsResponse>, Status> {
        let (caller, audit) = access::caller(request.extensions())?;
        let visible = self.visibility(&caller, Permission::List);
        let _turn = self.list_turn(&caller).await;
        let page = list::list_device_results(&visible, &audit, request.into_inner()).await?;
        Ok(Response::new(page))
    }
}
