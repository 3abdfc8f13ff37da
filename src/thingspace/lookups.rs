//! Questions to ThingSpace: what became of a request, which plan a device is on. They change
//! nothing, so they may be repeated; what their answers prove is for the caller to judge.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::{Method, RequestBuilder, header};
use serde_json::{Map, Value, json};

use super::{
    ThingSpace, classify,
    error_body::{ErrorBody, get},
    error_codes::{self, ErrorMeaning},
    http::{self, RequestInfo},
    new_refusal,
};
use crate::domain::{
    identifier::ReportedId,
    newtypes::{AccountName, RequestId},
    refusal::{Refusal, RefusalKind},
    result::Outcome,
};

const DEVICE_LIST: &str = "/m2m/v1/devices/actions/list";
const REQUEST_STATUS: &str = "/m2m/v2/accounts/{account}/requests/{request}/status";
/// Devices of one page of the device list ("Retrieve device information").
const PAGE_SIZE: usize = 2_000;
/// Pages that are read of one list.
const MAX_PAGES: usize = 3;
/// Identifiers of one device that are kept.
const MAX_IDS: usize = 32;

/// What ThingSpace says of one device of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its identifiers.
    pub ids: Vec<ReportedId>,
    /// What it says: `Interim` for all that is not known to be final.
    pub outcome: Outcome,
    /// As sent.
    pub status_text: String,
}

/// What ThingSpace says of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// All its identifiers.
    pub ids: Vec<ReportedId>,
    /// The plans that it is on: one for each carrier.
    pub service_plans: Vec<String>,
}

/// Why a question has no answer. Says it in one line, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// More than `thingspace.lookups_per_minute`, or ThingSpace throttles: not before this long.
    #[error("too many look-ups: the next one in {0:?}")]
    Throttled(Duration),
    /// ThingSpace knows no such request or device, or does not answer such a question.
    #[error("ThingSpace refused the question: {0}")]
    Refused(String),
    /// There is no token or session, for this reason.
    #[error("no answer: {}", .0.detail)]
    LoginFailed(Refusal),
    /// No answer that can be used.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

// === impl LookUpError ===

impl LookupError {
    /// The kind of the refusal by ThingSpace's error code, and the code, if it sent one.
    pub fn refusal_kind(&self) -> (RefusalKind, Option<&str>) {
        let Self::Refused(why) = self else {
            return (RefusalKind::NotSent, None);
        };
        match why.split_once(' ').map(|(_status, code)| code) {
            Some(code) if !code.is_empty() => {
                (error_codes::refusal_kind_for_code(code), Some(code))
            }
            _ => (RefusalKind::FailedPrecondition, None),
        }
    }
}

// === impl ThingSpace ===

impl ThingSpace {
    /// What became of each device of a request, by the status that covers eUICC requests ("Get
    /// asynchronous request status", v2).
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; a request that ThingSpace does not know is `Refused`.
    pub async fn request_status(
        &self,
        account: &AccountName,
        request: &RequestId,
    ) -> Result<Vec<DeviceStatus>, LookupError> {
        // Request ids are printable ASCII of any sort: as a segment of the path they are escaped.
        let mut url = self.endpoint.join("/m2m/v2/accounts");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend([account.as_str(), "requests", request.as_str(), "status"]);
        }
        let build_request = || self.http.default_client.get(url.clone());
        let body = self
            .send_json_lookup(&Method::GET, REQUEST_STATUS, &build_request)
            .await?;
        let members = body.as_object();
        let devices = members.and_then(|members| get(members, "subRequests"));
        let Some(Value::Array(devices)) = devices else {
            return Err(LookupError::NoAnswer("no list of devices".into()));
        };
        self.has_reported_status.store(true, Ordering::Relaxed);
        // An unreadable entry counts as an unknown device: without it, the list would look like a
        // shorter one.
        let nothing = Map::new();
        let devices = devices
            .iter()
            .map(|device| device.as_object().unwrap_or(&nothing));
        Ok(devices.map(parse_device_status).collect())
    }

    /// Whether it has ever told a status of a request, since this process began. Whether the status
    /// covers plan changes at all is not documented: until it has told one, a refusal may mean that it
    /// does not.
    pub fn has_reported_status(&self) -> bool {
        self.has_reported_status.load(Ordering::Relaxed)
    }

    /// The device with this identifier; `None` when ThingSpace names none, or more than one.
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn device(
        &self,
        account: &AccountName,
        id: &ReportedId,
    ) -> Result<Option<ListedDevice>, LookupError> {
        let query = json!({
            "accountName": account.as_str(),
            "deviceId": { "kind": id.kind.to_ascii_lowercase(), "id": id.id },
        });
        let (devices, _) = self.fetch_device_page(&query).await?;
        let is_it = |device: &ListedDevice| device.ids.iter().any(|other| other.eq_ignore_case(id));
        let mut found = devices.into_iter().filter(is_it);
        let one = found.next();
        Ok(one.filter(|_| found.next().is_none()))
    }

    /// All devices of an account that are on a plan, by the one list that a later look compares with;
    /// `None` when there are more than three pages of them.
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn devices_on_plan(
        &self,
        account: &AccountName,
        service_plan: &str,
    ) -> Result<Option<Vec<ListedDevice>>, LookupError> {
        let mut all = Vec::new();
        let mut largest: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = json!({
                "accountName": account.as_str(),
                "servicePlan": service_plan,
                "maxNumberOfDevices": PAGE_SIZE,
            });
            if let (Some(seen), Some(members)) = (&largest, query.as_object_mut()) {
                members.insert("largestDeviceIdSeen".into(), seen.as_str().into());
            }
            let (devices, more) = self.fetch_device_page(&query).await?;
            // Whatever the filter did: only what says so itself is on the plan.
            let on_plan = |device: &ListedDevice| device.is_on(service_plan);
            all.extend(devices.into_iter().filter(on_plan));
            match more {
                None => return Ok(Some(all)),
                Some(next) if largest.as_ref() == Some(&next) => return Ok(None),
                Some(next) => largest = Some(next),
            }
        }
        Ok(None)
    }

    /// One page of the device list, and where the next begins.
    async fn fetch_device_page(
        &self,
        query: &Value,
    ) -> Result<(Vec<ListedDevice>, Option<String>), LookupError> {
        let build_request = || {
            self.http
                .default_client
                .post(self.endpoint.join(DEVICE_LIST))
                .body(query.to_string())
        };
        let body = self
            .send_json_lookup(&Method::POST, DEVICE_LIST, &build_request)
            .await?;
        let members = body.as_object();
        let member = |name| members.and_then(|members| get(members, name));
        let Some(Value::Array(listed)) = member("devices") else {
            return Err(LookupError::NoAnswer("no list of devices".into()));
        };
        let listed: Vec<&Map<String, Value>> = listed.iter().filter_map(Value::as_object).collect();
        let more = matches!(member("hasMoreData"), Some(Value::Bool(true)));
        // The cursor is the last device's own number, where there is one.
        let last = listed.last().and_then(|device| {
            let attributes = get(device, "extendedAttributes").and_then(Value::as_array)?;
            let own = attributes
                .iter()
                .filter_map(Value::as_object)
                .find(|one| get(one, "key").and_then(Value::as_str) == Some("DeviceId"))?;
            plain(get(own, "value")?)
        });
        let next = more.then(|| last.unwrap_or_default());
        Ok((listed.into_iter().map(parse_listed_device).collect(), next))
    }

    pub(super) async fn send_json_lookup(
        &self,
        method: &Method,
        template: &'static str,
        build_request: &(dyn Fn() -> RequestBuilder + Sync),
    ) -> Result<Value, LookupError> {
        let body = self.send_lookup(method, template, build_request).await?;
        serde_json::from_slice(&body).map_err(|_| LookupError::NoAnswer("not JSON".into()))
    }

    /// Asks, within the limit of look-ups, and once more where the log-in was refused. The body is
    /// whatever came with a 2xx.
    pub(super) async fn send_lookup(
        &self,
        method: &Method,
        template: &'static str,
        build_request: &(dyn Fn() -> RequestBuilder + Sync),
    ) -> Result<Vec<u8>, LookupError> {
        let mut replays = 0;
        loop {
            self.lookup_rate_limit
                .try_acquire()
                .map_err(LookupError::Throttled)?;
            let unanswered = |why: &str| LookupError::NoAnswer(why.to_owned());
            let auth = self.session_manager.valid_headers(None).await;
            let auth = auth.map_err(|unprepared| LookupError::LoginFailed(unprepared.into()))?;
            let request = build_request()
                .header(header::AUTHORIZATION, auth.bearer())
                .header(http::SESSION_HEADER, auth.session())
                .header(header::CONTENT_TYPE, http::JSON)
                .header(header::ACCEPT, http::JSON);
            let info = RequestInfo {
                method,
                template,
                trace: None,
                max_body: http::MAX_LOOKUP_BODY,
            };
            let reply = self.http.send(request, info).await;
            let reply = reply.map_err(|failure| unanswered(failure.reason()))?;
            if reply.status.is_success() {
                return Ok(reply.body);
            }
            let error = ErrorBody::parse(&reply.body);
            if classify::is_throttled_response(&reply, error.as_ref()) {
                let wait = reply.retry_after.unwrap_or(Duration::from_secs(60));
                self.lookup_rate_limit.pause(wait);
                return Err(LookupError::Throttled(wait));
            }
            if let Some(stale) = classify::stale_auth(&reply, error.as_ref()) {
                if replays < 2 {
                    replays += 1;
                    self.session_manager.discard(&auth, stale);
                    continue;
                }
                let why = "ThingSpace refuses a token and a session that were just issued";
                return Err(LookupError::LoginFailed(new_refusal(
                    RefusalKind::Credentials,
                    why,
                )));
            }
            let status = reply.status.as_u16();
            return Err(match error {
                // Whatever the body: there is nobody there who answers such a question.
                None if matches!(status, 404 | 405 | 410) => {
                    LookupError::Refused(status.to_string())
                }
                // The code is ThingSpace's own word; its text could have anything in it.
                Some(error)
                    if reply.status.is_client_error()
                        && error_codes::classify_error(&error) != Some(ErrorMeaning::Uncertain) =>
                {
                    let code = error.cause_code().unwrap_or(&error.code);
                    let code: String = code.chars().take(100).collect();
                    LookupError::Refused(format!("{status} {code}"))
                }
                _ => LookupError::NoAnswer(format!("ThingSpace answered {status}")),
            });
        }
    }
}

// === Reading ===

fn parse_device_status(device: &Map<String, Value>) -> DeviceStatus {
    let status_text = get(device, "status").and_then(plain).unwrap_or_default();
    DeviceStatus {
        ids: get(device, "ids").map(parse_device_ids).unwrap_or_default(),
        outcome: match status_text.to_ascii_lowercase().as_str() {
            "success" => Outcome::Succeeded,
            "failed" | "failure" => Outcome::Failed,
            _ => Outcome::Interim,
        },
        status_text,
    }
}

fn parse_listed_device(device: &Map<String, Value>) -> ListedDevice {
    let carriers = get(device, "carrierInformations").and_then(Value::as_array);
    let plan = |carrier: &Value| plain(get(carrier.as_object()?, "servicePlan")?);
    ListedDevice {
        ids: get(device, "deviceIds")
            .map(parse_device_ids)
            .unwrap_or_default(),
        service_plans: carriers.into_iter().flatten().filter_map(plan).collect(),
    }
}

/// A list of identifiers, or one alone: the SDK has an object where the page has a list.
fn parse_device_ids(ids: &Value) -> Vec<ReportedId> {
    let one = |id: &Value| {
        let members = id.as_object()?;
        Some(ReportedId {
            kind: plain(get(members, "kind")?)?,
            id: plain(get(members, "id")?)?,
        })
    };
    match ids {
        Value::Array(ids) => ids.iter().filter_map(one).take(MAX_IDS).collect(),
        alone => one(alone).into_iter().collect(),
    }
}

/// A short text, or a number.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().chars().take(200).collect()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

// === impl ListedDevice ===

impl ListedDevice {
    /// Whether it is on a plan of this name or code.
    pub fn is_on(&self, service_plan: &str) -> bool {
        let same = |plan: &String| plan.eq_ignore_ascii_case(service_plan);
        self.service_plans.iter().any(same)
    }
}
