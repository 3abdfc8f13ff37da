//! The lookups of the client: requests that change no device.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    domain::{
        identifier::ReportedId,
        newtypes::{AccountName, RequestId},
    },
    thingspace::{
        client::changes::ThingSpace,
        error::LookupError,
        json::member,
        lookups::{
            DevicePage, DeviceStatus, ListedDevice, ListenerRegistration, LookupRequest,
            ServicePlanInfo,
        },
    },
};

const DEVICE_LIST: &str = "/m2m/v1/devices/actions/list";
const LISTENERS: &str = "/m2m/v1/callbacks/{account}";
const REQUEST_STATUS: &str = "/m2m/v2/accounts/{account}/requests/{request}/status";
const SERVICE_PLANS: &str = "/m2m/v1/plans/{account}";

/// Number of devices of a page of the device list.
const PAGE_SIZE: usize = 2_000;
/// Maximum number of pages that are read of the device list.
const MAX_PAGES: usize = 3;
/// Maximum number of listeners of an account. There are about 25 callback services.
const MAX_LISTENERS: usize = 200;
/// Maximum number of service plans of an account.
const MAX_PLANS: usize = 2_000;
/// Maximum time that listing or registering a listener waits for the rate limit. Other lookups do not wait.
const LISTENER_RATE_LIMIT_WAIT: Duration = Duration::from_secs(120);

impl ThingSpace {
    /// Looks up the devices of a request ("Get asynchronous request status", v2).
    ///
    /// # Errors
    ///
    /// [`LookupError`]; `Refused` if ThingSpace does not know the request.
    pub async fn request_status(
        &self,
        account: &AccountName,
        request: &RequestId,
    ) -> Result<Vec<DeviceStatus>, LookupError> {
        let lookup = LookupRequest {
            template: REQUEST_STATUS,
            values: &[account.as_str(), request.as_str()],
            ..LookupRequest::default()
        };
        let body = self.lookups.send_json(lookup).await?;
        let devices = member(&body, "subRequests").and_then(Value::as_array);
        let devices =
            devices.ok_or_else(|| unusable("the response contains no list of devices"))?;
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
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub async fn device(
        &self,
        account: &AccountName,
        id: &ReportedId,
    ) -> Result<Option<ListedDevice>, LookupError> {
        let query = json!({
            "accountName": account.as_str(),
            "deviceId": { "kind": id.kind.to_ascii_lowercase(), "id": id.id },
        });
        let page = self.fetch_device_page(query).await?;
        let has_id =
            |device: &ListedDevice| device.ids.iter().any(|other| other.eq_ignore_case(id));
        let mut devices = page.devices.into_iter().filter(has_id);
        let device = devices.next();
        Ok(device.filter(|_| devices.next().is_none()))
    }

    /// Looks up all devices of an account that are on a plan. Returns `None` if they exceed three pages of
    /// 2,000 devices.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub async fn devices_on_plan(
        &self,
        account: &AccountName,
        service_plan: &str,
    ) -> Result<Option<Vec<ListedDevice>>, LookupError> {
        let mut all = Vec::new();
        let mut query = json!({
            "accountName": account.as_str(),
            "servicePlan": service_plan,
            "maxNumberOfDevices": PAGE_SIZE,
        });
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            if let (Some(cursor), Some(members)) = (&cursor, query.as_object_mut()) {
                members.insert("largestDeviceIdSeen".into(), Value::clone(cursor));
            }
            let page = self.fetch_device_page(query.clone()).await?;
            // ThingSpace's filter is not relied on.
            let on_plan = |device: &ListedDevice| device.is_on(service_plan);
            all.extend(page.devices.into_iter().filter(on_plan));
            let next = page.next.map(Value::from);
            if next.is_none() {
                return Ok(Some(all));
            }
            if next == cursor {
                return Ok(None);
            }
            cursor = next;
        }
        Ok(None)
    }

    async fn fetch_device_page(&self, query: Value) -> Result<DevicePage, LookupError> {
        let lookup = LookupRequest {
            method: Method::POST,
            template: DEVICE_LIST,
            body: Some(query),
            ..LookupRequest::default()
        };
        let body = self.lookups.send_json(lookup).await?;
        DevicePage::parse(&body).ok_or_else(|| unusable("the response contains no list of devices"))
    }

    /// Lists the callback listeners of an account, without those that were registered through SOAP.
    ///
    /// # Errors
    ///
    /// [`LookupError`], also for a malformed registration: the caller must not conclude that a service has
    /// no listener.
    pub async fn list_listeners(
        &self,
        account: &AccountName,
    ) -> Result<Vec<ListenerRegistration>, LookupError> {
        let lookup = LookupRequest {
            template: LISTENERS,
            values: &[account.as_str()],
            max_wait: LISTENER_RATE_LIMIT_WAIT,
            ..LookupRequest::default()
        };
        let body = self.lookups.send(lookup).await?;
        // ThingSpace may send an empty body instead of an empty list.
        if body.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let listed = match serde_json::from_slice(&body) {
            Ok(Value::Array(listed)) if listed.len() <= MAX_LISTENERS => listed,
            _ => return Err(unusable("the response contains no list of listeners")),
        };
        let listeners = listed.iter().map(ListenerRegistration::parse);
        let listeners: Option<Vec<_>> = listeners.collect();
        listeners.ok_or_else(|| unusable("the response contains a malformed listener"))
    }

    /// Registers a callback listener and replaces the present one of the service. May be repeated.
    ///
    /// # Errors
    ///
    /// [`LookupError`]; after `NoResponse` the listener may be registered.
    pub async fn register_listener(
        &self,
        account: &AccountName,
        listener: &ListenerRegistration,
    ) -> Result<(), LookupError> {
        let lookup = LookupRequest {
            method: Method::POST,
            template: LISTENERS,
            values: &[account.as_str()],
            body: Some(listener.to_json()),
            max_wait: LISTENER_RATE_LIMIT_WAIT,
            hidden: listener.secret_values(),
        };
        self.lookups.send(lookup).await.map(drop)
    }

    /// Lists the service plans of an account in ThingSpace's order ("Retrieve service plans").
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub async fn service_plans(
        &self,
        account: &AccountName,
    ) -> Result<Vec<ServicePlanInfo>, LookupError> {
        let lookup = LookupRequest {
            template: SERVICE_PLANS,
            values: &[account.as_str()],
            ..LookupRequest::default()
        };
        let body = self.lookups.send_json(lookup).await?;
        let plans = body.as_array();
        let plans = plans.ok_or_else(|| unusable("the response contains no list of plans"))?;
        let plans = plans.iter().filter(|plan| plan.is_object());
        Ok(plans.take(MAX_PLANS).map(ServicePlanInfo::parse).collect())
    }
}

fn unusable(reason: &str) -> LookupError {
    LookupError::NoResponse(reason.to_owned())
}
