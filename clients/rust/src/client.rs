//! The calls of the gateway.

use std::{fmt, sync::Arc, time::Duration};

use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    AddToken, ClientBuilder, FailedAttempt, GatewayError, List, Token, Transport, Watch,
    list::Page,
    retry::{CallKind, repeat},
    v1,
};

/// The stub of `GatewayService`.
pub type GatewayStub = v1::gateway_service_client::GatewayServiceClient<Transport>;

/// The stub of `OperatorService`.
pub type OperatorStub = v1::operator_service_client::OperatorServiceClient<Transport>;

/// Calls the gateway. Clones are cheap and share the connection.
///
/// To cancel a call, drop its future. ThingSpace may still execute a change whose call was cancelled.
#[derive(Clone, Debug)]
pub struct Client {
    gateway: GatewayStub,
    operator: OperatorStub,
    has_token_function: bool,
    options: CallOptions,
}

impl Client {
    /// Returns the options of a connection to this address, such as `gateway.example.com:443`.
    pub fn builder(target: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(target.into())
    }

    /// Returns a client that uses a channel of your own. The token is sent on it whether it uses TLS or
    /// not.
    pub fn from_channel(channel: Channel, token: Option<Token>) -> Self {
        let has_token_function = token.as_ref().is_some_and(Token::is_function);
        let transport = Transport::new(channel, AddToken(token));
        Self {
            gateway: GatewayStub::new(transport.clone()),
            operator: OperatorStub::new(transport),
            has_token_function,
            options: CallOptions::default(),
        }
    }

    /// Returns a client with other options of calls, on the same connection.
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// The stub of `GatewayService`. It adds the token, but repeats nothing.
    pub fn gateway(&self) -> GatewayStub {
        self.gateway.clone()
    }

    /// The stub of `OperatorService`. It adds the token, but repeats nothing.
    pub fn operator(&self) -> OperatorStub {
        self.operator.clone()
    }

    /// Changes the service plan of eSIM profiles.
    ///
    /// Repeats the call with the same idempotency key until the gateway has stored the change or has
    /// certainly not executed it. OK does not mean that ThingSpace has executed the change: watch it.
    ///
    /// If [`GatewayError::outcome_unknown`] is true, ThingSpace may still execute the change. A request
    /// without an idempotency key is an error, because it could not be repeated.
    pub async fn change_esim_plan(
        &self,
        request: v1::ChangeEsimPlanRequest,
    ) -> Result<v1::ChangeEsimPlanResponse, GatewayError> {
        let kind = kind_of_change(&request.idempotency_key, request.validate_only)?;
        self.repeat(kind, request, |request| {
            let mut stub = self.gateway();
            async move { stub.change_esim_plan(request).await }
        })
        .await
    }

    /// Changes the service plan of 5G Business Internet devices. See
    /// [`change_esim_plan`](Self::change_esim_plan).
    pub async fn change_five_g_bi_plan(
        &self,
        request: v1::ChangeFiveGBiPlanRequest,
    ) -> Result<v1::ChangeFiveGBiPlanResponse, GatewayError> {
        let kind = kind_of_change(&request.idempotency_key, request.validate_only)?;
        self.repeat(kind, request, |request| {
            let mut stub = self.gateway();
            async move { stub.change_five_g_bi_plan(request).await }
        })
        .await
    }

    /// Changes the service plan of other devices. See [`change_esim_plan`](Self::change_esim_plan).
    pub async fn change_service_plan(
        &self,
        request: v1::ChangeServicePlanRequest,
    ) -> Result<v1::ChangeServicePlanResponse, GatewayError> {
        let kind = kind_of_change(&request.idempotency_key, request.validate_only)?;
        self.repeat(kind, request, |request| {
            let mut stub = self.gateway();
            async move { stub.change_service_plan(request).await }
        })
        .await
    }

    /// Watches one change or request. See [`Watch`].
    pub fn watch(&self, request: v1::WatchRequestRequest) -> Watch<v1::WatchRequestResponse> {
        let (stub, token) = (self.gateway(), request.resume_token.clone());
        Watch::new(token, self.options.clone(), self.has_token_function, move |resume_token| {
            let mut stub = stub.clone();
            let request = v1::WatchRequestRequest { resume_token, ..request.clone() };
            Box::pin(async move { stub.watch_request(request).await })
        })
    }

    /// Watches all changes of an account. See [`Watch`].
    pub fn watch_account(
        &self,
        request: v1::WatchAccountRequest,
    ) -> Watch<v1::WatchAccountResponse> {
        let (stub, token) = (self.gateway(), request.resume_token.clone());
        Watch::new(token, self.options.clone(), self.has_token_function, move |resume_token| {
            let mut stub = stub.clone();
            let request = v1::WatchAccountRequest { resume_token, ..request.clone() };
            Box::pin(async move { stub.watch_account(request).await })
        })
    }

    /// Returns one change.
    pub async fn get_change(
        &self,
        request: v1::GetChangeRequest,
    ) -> Result<v1::GetChangeResponse, GatewayError> {
        self.call(request, |request| {
            let mut stub = self.gateway();
            async move { stub.get_change(request).await }
        })
        .await
    }

    /// Lists the changes of all pages, newest first.
    pub fn list_changes(&self, request: v1::ListChangesRequest) -> List<v1::Change> {
        let client = self.clone();
        List::new(request.page_token.clone(), move |page_token| {
            let (client, request) =
                (client.clone(), v1::ListChangesRequest { page_token, ..request.clone() });
            Box::pin(async move {
                let read = |request| {
                    let mut stub = client.gateway();
                    async move { stub.list_changes(request).await }
                };
                let page = client.call(request, read).await?;
                Ok(Page { items: page.changes, next_page_token: page.next_page_token })
            })
        })
    }

    /// Lists the devices of all pages.
    pub fn list_devices(&self, request: v1::ListDevicesRequest) -> List<v1::Device> {
        let client = self.clone();
        List::new(request.page_token.clone(), move |page_token| {
            let (client, request) =
                (client.clone(), v1::ListDevicesRequest { page_token, ..request.clone() });
            Box::pin(async move {
                let read = |request| {
                    let mut stub = client.gateway();
                    async move { stub.list_devices(request).await }
                };
                let page = client.call(request, read).await?;
                Ok(Page { items: page.devices, next_page_token: page.next_page_token })
            })
        })
    }

    /// Lists the results of all pages, oldest first.
    pub fn list_device_results(
        &self,
        request: v1::ListDeviceResultsRequest,
    ) -> List<v1::DeviceResult> {
        let client = self.clone();
        List::new(request.page_token.clone(), move |page_token| {
            let client = client.clone();
            let request = v1::ListDeviceResultsRequest { page_token, ..request.clone() };
            Box::pin(async move {
                let read = |request| {
                    let mut stub = client.gateway();
                    async move { stub.list_device_results(request).await }
                };
                let page = client.call(request, read).await?;
                Ok(Page { items: page.device_results, next_page_token: page.next_page_token })
            })
        })
    }

    /// Returns the service plans of an account.
    pub async fn list_service_plans(
        &self,
        request: v1::ListServicePlansRequest,
    ) -> Result<v1::ListServicePlansResponse, GatewayError> {
        self.call(request, |request| {
            let mut stub = self.gateway();
            async move { stub.list_service_plans(request).await }
        })
        .await
    }

    /// Returns the version of the gateway, and the properties of its journal.
    pub async fn get_server_info(&self) -> Result<v1::GetServerInfoResponse, GatewayError> {
        self.call(v1::GetServerInfoRequest {}, |request| {
            let mut stub = self.gateway();
            async move { stub.get_server_info(request).await }
        })
        .await
    }

    /// Calls a method of a stub that changes nothing, and repeats the call unless `retry` is NEVER.
    ///
    /// ```no_run
    /// # async fn example(client: thingspace_gateway_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use thingspace_gateway_client::v1::GetStatusRequest;
    ///
    /// let status = client
    ///     .call(GetStatusRequest {}, |request| {
    ///         let mut stub = client.operator();
    ///         async move { stub.get_status(request).await }
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<Q, R, F, Fut>(&self, request: Q, method: F) -> Result<R, GatewayError>
    where
        Q: Clone,
        F: Fn(Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.repeat(CallKind::Read, request, method).await
    }

    async fn repeat<Q, R, F, Fut>(
        &self,
        kind: CallKind,
        request: Q,
        method: F,
    ) -> Result<R, GatewayError>
    where
        Q: Clone,
        F: Fn(Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        repeat(kind, &self.options, self.has_token_function, |limit| {
            let mut request = Request::new(request.clone());
            request.set_timeout(limit.min(LONGEST_DEADLINE) + DEADLINE_MARGIN);
            method(request)
        })
        .await
    }
}

/// The library itself ends an attempt. The deadline in the request is later, because tonic would report it
/// as CANCELLED.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);

/// tonic cannot write a much longer one.
const LONGEST_DEADLINE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

fn kind_of_change(idempotency_key: &str, validate_only: bool) -> Result<CallKind, GatewayError> {
    if idempotency_key.is_empty() {
        return Err(GatewayError::invalid_argument(
            "a change without an idempotency_key cannot be repeated",
        ));
    }
    Ok(if validate_only { CallKind::Validation } else { CallKind::Change })
}

type OnRetry = Arc<dyn Fn(FailedAttempt<'_>) + Send + Sync>;

/// The options of calls and watches. [`Client::with_options`] sets them.
#[derive(Clone)]
#[must_use]
pub struct CallOptions {
    pub(crate) attempt_timeout: Duration,
    pub(crate) total_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) reopen_timeout: Option<Duration>,
    on_retry: Option<OnRetry>,
}

impl CallOptions {
    /// Sets the deadline of one attempt of a unary call: 90 s by default.
    pub fn attempt_timeout(self, attempt_timeout: Duration) -> Self {
        Self { attempt_timeout, ..self }
    }

    /// Sets the time limit of a unary call with all its attempts: 10 minutes by default. After the limit,
    /// the call returns the last error.
    pub fn total_timeout(self, total_timeout: Duration) -> Self {
        Self { total_timeout, ..self }
    }

    /// Sets the time without an event after which a stream counts as broken: 90 s by default. The gateway
    /// sends an event at least every 30 s by default (its setting `grpc.bookmark_interval`, at most 60 s).
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Lets a watch fail if no stream has delivered an event for this time. By default, there is no limit.
    pub fn reopen_timeout(self, reopen_timeout: Duration) -> Self {
        Self { reopen_timeout: Some(reopen_timeout), ..self }
    }

    /// Sets a function that is called before each repeated attempt.
    pub fn on_retry(self, on_retry: impl Fn(FailedAttempt<'_>) + Send + Sync + 'static) -> Self {
        Self { on_retry: Some(Arc::new(on_retry)), ..self }
    }

    pub(crate) fn report(&self, attempt: FailedAttempt<'_>) {
        if let Some(on_retry) = &self.on_retry {
            on_retry(attempt);
        }
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(90),
            total_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(90),
            reopen_timeout: None,
            on_retry: None,
        }
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("attempt_timeout", &self.attempt_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("reopen_timeout", &self.reopen_timeout)
            .finish_non_exhaustive()
    }
}
