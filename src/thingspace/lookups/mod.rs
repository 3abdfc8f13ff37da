//! Lookups: requests that change no device. They are sent within the rate limit, and again if a token or session
//! was refused.

mod responses;

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    domain::{
        caller_name::CallerName,
        identifier::ReportedId,
        newtypes::{AccountName, RequestId},
        refusal::{Refusal, RefusalKind},
    },
    thingspace::{
        classify,
        client::{MAX_SHARED_REPLAYS, ThingSpace},
        error_body::{ErrorBody, ErrorMeaning},
        http::UpstreamResponse,
        json::member,
        lookup_limits::LookupOrigin,
        lookups::responses::DevicePage,
        rate_limit::NoPermit,
        redactor::Redactor,
    },
};

pub use responses::{DeviceStatus, ListedDevice, ListenerRegistration, ServicePlanInfo};

const DEVICE_LIST: &str = "/m2m/v1/devices/actions/list";
const LISTENERS: &str = "/m2m/v1/callbacks/{account}";
const REQUEST_STATUS: &str = "/m2m/v2/accounts/{account}/requests/{request}/status";
const SERVICE_PLANS: &str = "/m2m/v1/plans/{account}";

/// Number of devices of a page of the device list.
const PAGE_SIZE: usize = 2_000;
/// Maximum number of pages that are read of the device list.
const MAX_PAGES: usize = 3;
/// Maximum number of listeners of an account. Accounts have about ten.
const MAX_LISTENERS: usize = 200;
/// Maximum number of service plans of an account.
const MAX_PLANS: usize = 2_000;
/// Maximum length of an error code, in characters.
const MAX_CODE_LENGTH: usize = 100;

/// Maximum time that listing or registering a listener waits for the rate limit. Other lookups do not wait.
const LISTENER_RATE_LIMIT_WAIT: Duration = Duration::from_secs(120);
/// Pause after a throttled lookup without `Retry-After`.
const DEFAULT_THROTTLE_PAUSE: Duration = Duration::from_secs(60);
/// Minimum delay before a throttled lookup is retried.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Number of repetitions after refused tokens and sessions.
const MAX_REPLAYS: u32 = 2;

const NO_DEVICES: &str = "the response contains no list of devices";

/// A lookup failed. The message is one line without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The rate limit, or the part of it that clients can use, is reached, or ThingSpace throttled
    /// the lookup. Holds the delay before a retry.
    #[error(
        "lookup rate limit reached (thingspace.lookups_per_minute, or ThingSpace's Retry-After): \
         retry in {0:?}"
    )]
    Throttled(Duration),
    /// ThingSpace does not know the request or the device, or does not support the lookup.
    #[error("ThingSpace refused the lookup: {status} {}", code.as_deref().unwrap_or("without an error code"))]
    Refused {
        /// The status of the response.
        status: u16,
        /// ThingSpace's error code, if the response had one.
        code: Option<String>,
        /// The kind of refusal that the code means.
        kind: RefusalKind,
    },
    /// The permits that the replicas share cannot be used, so the lookup was not sent. Holds the reason.
    #[error(
        "lookup failed: cannot take a permit of thingspace.lookups_per_minute in the journal: {0}"
    )]
    NoPermit(String),
    /// There is no token or session.
    #[error("lookup failed: {}", .0.detail)]
    LoginFailed(Refusal),
    /// There is no usable response.
    #[error("lookup failed: {0}")]
    NoResponse(String),
}

impl ThingSpace {
    /// Looks up the devices of a request ("Get asynchronous request status", v2). The error is `Refused` if
    /// ThingSpace does not know the request.
    pub async fn request_status(
        &self,
        account: &AccountName,
        request: &RequestId,
    ) -> Result<Vec<DeviceStatus>, LookupError> {
        let values = &[account.as_str(), request.as_str()];
        let body = self.fetch_json(REQUEST_STATUS, values, None, without_wait()).await?;
        let devices = member(&body, "subRequests").and_then(Value::as_array);
        let devices = devices.ok_or_else(|| unusable(NO_DEVICES))?;
        self.has_reported_status.store(true, Ordering::Relaxed);
        // A malformed entry becomes a device without identifiers: the number of devices must stay the same.
        Ok(devices.iter().map(DeviceStatus::parse).collect())
    }

    /// True if ThingSpace has returned the status of a request since the process started.
    ///
    /// The documentation does not say whether the status covers plan changes. Until ThingSpace has returned
    /// one, a refused lookup may mean that it does not.
    pub fn has_reported_status(&self) -> bool {
        self.has_reported_status.load(Ordering::Relaxed)
    }

    /// Looks up the device with this identifier. Returns `None` if there are none or several.
    pub async fn device(
        &self,
        account: &AccountName,
        id: &ReportedId,
    ) -> Result<Option<ListedDevice>, LookupError> {
        let query = json!({
            "accountName": account.as_str(),
            "deviceId": { "kind": id.kind.to_ascii_lowercase(), "id": id.id },
        });
        let page = self.fetch_device_page(&query).await?;
        let is_id = |other: &ReportedId| {
            other.kind.eq_ignore_ascii_case(&id.kind) && other.id.eq_ignore_ascii_case(&id.id)
        };
        let has_id = |device: &ListedDevice| device.ids.iter().any(is_id);
        let mut devices = page.devices.into_iter().filter(has_id);
        let device = devices.next();
        Ok(device.filter(|_| devices.next().is_none()))
    }

    /// Looks up all devices of an account that are on a plan. Returns `None` if they exceed three pages of
    /// 2,000 devices, or if a page cannot be continued.
    pub async fn devices_on_plan(
        &self,
        account: &AccountName,
        service_plan: &str,
    ) -> Result<Option<Vec<ListedDevice>>, LookupError> {
        let mut all = Vec::new();
        let mut largest_seen = 0;
        for _ in 0..MAX_PAGES {
            let query = json!({
                "accountName": account.as_str(),
                "servicePlan": service_plan,
                "maxNumberOfDevices": PAGE_SIZE,
                // Also in the first request: without it, the list is in another order.
                "largestDeviceIdSeen": largest_seen,
            });
            let page = self.fetch_device_page(&query).await?;
            // ThingSpace's filter is not relied on.
            let on_plan = |device: &ListedDevice| device.is_on(service_plan);
            all.extend(page.devices.into_iter().filter(on_plan));
            if !page.has_more {
                return Ok(Some(all));
            }
            match page.last_number {
                Some(last) if last > largest_seen => largest_seen = last,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn fetch_device_page(&self, query: &Value) -> Result<DevicePage, LookupError> {
        let query = Some(query.to_string());
        let body = self.fetch_json(DEVICE_LIST, &[], query, without_wait()).await?;
        DevicePage::parse(&body).ok_or_else(|| unusable(NO_DEVICES))
    }

    /// Lists the callback listeners of an account, without those that were registered through SOAP. A
    /// malformed registration is an error: the caller must not conclude that a service has no listener.
    pub async fn list_listeners(
        &self,
        account: &AccountName,
    ) -> Result<Vec<ListenerRegistration>, LookupError> {
        let (values, origin) = (&[account.as_str()], with_listener_wait());
        let body = self.send_lookup(LISTENERS, values, None, origin, &[]).await?;
        // ThingSpace may send an empty body instead of an empty list.
        if body.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let listed = match serde_json::from_slice(&body) {
            Ok(Value::Array(listed)) if listed.len() <= MAX_LISTENERS => listed,
            _ => return Err(unusable("the response contains no list of at most 200 listeners")),
        };
        let listeners: Option<Vec<_>> = listed.iter().map(ListenerRegistration::parse).collect();
        listeners.ok_or_else(|| unusable("the response contains a malformed listener"))
    }

    /// Registers a callback listener. The gateway assumes that it replaces the present one of the service (see
    /// docs/thingspace-facts.md, section 4.2). May be repeated. After the error `NoResponse`, the listener may
    /// be registered.
    pub async fn register_listener(
        &self,
        account: &AccountName,
        listener: &ListenerRegistration,
    ) -> Result<(), LookupError> {
        let (values, origin) = (&[account.as_str()], with_listener_wait());
        let (body, secrets) = (listener.to_json().to_string(), listener.secret_values());
        self.send_lookup(LISTENERS, values, Some(body), origin, &secrets).await.map(drop)
    }

    /// Lists the service plans of an account in ThingSpace's order ("Retrieve a List of Service
    /// Plans"). For a client, which can use only a part of the rate limit; `caller` is its name in the policy.
    pub async fn service_plans(
        &self,
        account: &AccountName,
        caller: Option<&CallerName>,
    ) -> Result<Vec<ServicePlanInfo>, LookupError> {
        let origin = LookupOrigin::Client(caller);
        let body = self.fetch_json(SERVICE_PLANS, &[account.as_str()], None, origin).await?;
        let plans = body.as_array();
        let plans = plans.ok_or_else(|| unusable("the response contains no list of plans"))?;
        let plans = plans.iter().filter(|plan| plan.is_object());
        Ok(plans.take(MAX_PLANS).map(ServicePlanInfo::parse).collect())
    }

    async fn fetch_json(
        &self,
        template: &'static str,
        values: &[&str],
        body: Option<String>,
        origin: LookupOrigin<'_>,
    ) -> Result<Value, LookupError> {
        let body = self.send_lookup(template, values, body, origin, &[]).await?;
        serde_json::from_slice(&body).map_err(|_| unusable("the response is not JSON"))
    }

    /// Sends a lookup, as POST if it has a body, and returns the body of a 2xx response. `origin` decides which part
    /// of the rate limit it can use, and how long it waits for it. Redacts `hidden` in an error code.
    async fn send_lookup(
        &self,
        template: &'static str,
        values: &[&str],
        body: Option<String>,
        origin: LookupOrigin<'_>,
        hidden: &[&str],
    ) -> Result<Vec<u8>, LookupError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let deadline = match origin {
            LookupOrigin::Gateway(deadline) => deadline,
            LookupOrigin::Client(_) => Instant::now(),
        };
        let (mut replays, mut shared_replays) = (0, 0);
        loop {
            let permit = self.lookup_limits.acquire(origin).await;
            permit.map_err(|error| match error {
                NoPermit::Delayed(delay) => LookupError::Throttled(delay),
                NoPermit::Unavailable(error) => LookupError::NoPermit(error),
            })?;
            let auth = self.session_manager.valid_headers(None).await;
            let auth = auth.map_err(LookupError::LoginFailed)?;
            let mut request = self.lookup_http.request(method.clone(), template, values);
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let request = auth.add_to(request);
            let response = self.lookup_http.send(request, template, None).await;
            let response = response.map_err(|error| unusable(error.reason()))?;
            if response.status.is_success() {
                return Ok(response.body);
            }
            let error = ErrorBody::parse(&response.body);
            if classify::is_throttled(&response, error.as_ref()) {
                let delay = response.retry_after.unwrap_or(DEFAULT_THROTTLE_PAUSE);
                self.lookup_limits.pause(delay).await;
                if Instant::now() + delay >= deadline {
                    return Err(LookupError::Throttled(delay));
                }
                sleep(delay.max(MIN_RETRY_DELAY)).await;
            } else if let Some(stale) = classify::stale_auth(&response, error.as_ref()) {
                if auth.is_shared(stale) && shared_replays < MAX_SHARED_REPLAYS {
                    shared_replays += 1;
                } else if replays == MAX_REPLAYS {
                    let detail = "ThingSpace refused a freshly issued token or session";
                    let refusal = Refusal::new(RefusalKind::Credentials, detail);
                    return Err(LookupError::LoginFailed(refusal));
                } else {
                    replays += 1;
                }
                self.session_manager.discard(&auth, stale);
            } else {
                let redactor = Redactor::new(hidden.iter().copied().chain(auth.secrets()), &[]);
                return Err(lookup_error(&response, error, &redactor));
            }
        }
    }
}

fn lookup_error(
    response: &UpstreamResponse,
    error: Option<ErrorBody>,
    redactor: &Redactor,
) -> LookupError {
    let status = response.status.as_u16();
    let meaning = error.as_ref().and_then(ErrorBody::meaning);
    let kind = match meaning {
        Some(ErrorMeaning::Refused(kind)) => kind,
        _ => RefusalKind::FailedPrecondition,
    };
    match error {
        // ThingSpace has no such lookup, whatever the format of the body.
        None if matches!(status, 404 | 405 | 410) => {
            LookupError::Refused { status, code: None, kind }
        }
        // Only the code is reported: the text may contain anything.
        Some(error)
            if response.status.is_client_error() && meaning != Some(ErrorMeaning::Uncertain) =>
        {
            let code = redactor.redact_text(error.reported_code(), MAX_CODE_LENGTH);
            LookupError::Refused { status, code: Some(code), kind }
        }
        _ => LookupError::NoResponse(format!("ThingSpace responded {status}")),
    }
}

/// The gateway's own lookup, which does not wait for the rate limit.
fn without_wait() -> LookupOrigin<'static> {
    LookupOrigin::Gateway(Instant::now())
}

/// The gateway's own lookup of the listeners, or their registration.
fn with_listener_wait() -> LookupOrigin<'static> {
    LookupOrigin::Gateway(Instant::now() + LISTENER_RATE_LIMIT_WAIT)
}

fn unusable(reason: &str) -> LookupError {
    LookupError::NoResponse(reason.to_owned())
}
