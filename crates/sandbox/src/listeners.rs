//! Registered callback listeners: one per account and service.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use thingspace_loopback::is_loopback_url;
use tokio::time::Instant;
use url::Url;

use crate::{
    faults::{Fault, code},
    json_body::{self, remove_nulls, required_text},
    settings::Settings,
};

/// Maximum number of accounts with listeners.
const MAX_ACCOUNTS: usize = 1000;
/// Maximum length of a user name and of a password, in characters.
const MAX_CREDENTIAL: usize = 40;

/// The services that listeners can be registered for (see docs/thingspace-facts.md, section 4.1).
const SERVICES: &str = "AlertService CarrierService DevicePRLInformation DeviceProfileService \
    DevicePromoUsage DeviceService DeviceSuspensionStatus DeviceUsage DiagnosticsService \
    EnhancedConnectivityService ExtendedEnhancedConnectivityService ExternalProvisioningChanges \
    IntelligenceService NetworkEventService NiddService PromoChanges PwnService QoS \
    ResumeTrackingNotification SMSDeliveryConfirmation StateService SubscriptionNotificationService \
    VIPCallbackService";

/// The URL of a listener, and the credentials in its callbacks.
#[derive(Clone)]
pub(crate) struct CallbackListener {
    pub(crate) url: Url,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

#[derive(Default)]
pub(crate) struct Registrations {
    accounts: BTreeMap<String, BTreeMap<&'static str, RegisteredListener>>,
}

struct RegisteredListener {
    listener: CallbackListener,
    /// The previous registration, and the time until which callbacks carry its credentials.
    previous: Option<(CallbackListener, Instant)>,
}

#[derive(Deserialize)]
struct RegistrationBody<'b> {
    #[serde(borrow)]
    name: Option<&'b str>,
    url: Option<&'b str>,
    username: Option<&'b str>,
    password: Option<&'b str>,
}

impl Registrations {
    /// Registers a listener. Returns its service. Replaces an earlier registration; ThingSpace's
    /// behaviour is not documented.
    pub(crate) fn register(
        &mut self,
        settings: &Settings,
        account: &str,
        body: &[u8],
    ) -> Result<&'static str, Fault> {
        let registration: RegistrationBody<'_> = json_body::parse_checked(body)?;
        json_body::check_account(account)?;
        let service = parse_service(required_text(registration.name, "name")?)?;
        let listener = registration.to_listener(settings.any_callback_port)?;
        if !self.accounts.contains_key(account) && self.accounts.len() >= MAX_ACCOUNTS {
            let message = "The sandbox stores listeners for at most 1000 accounts";
            return Err(Fault::new(code::UNEXPECTED, message));
        }
        let listeners = self.accounts.entry(account.to_owned()).or_default();
        let until = Instant::now() + settings.credentials_lag;
        let previous = listeners.remove(service).map(|it| (it.listener, until));
        listeners.insert(service, RegisteredListener { listener, previous });
        Ok(service)
    }

    /// Returns the listeners of an account, with their passwords, as ThingSpace does.
    pub(crate) fn list(&self, account: &str) -> Vec<Value> {
        let listeners = self.accounts.get(account).into_iter().flatten();
        listeners
            .map(|(service, RegisteredListener { listener, .. })| {
                let mut entry = json!({
                    "accountName": account,
                    "serviceName": service,
                    "url": listener.url.as_str(),
                    "username": listener.username,
                    "password": listener.password,
                });
                remove_nulls(&mut entry);
                entry
            })
            .collect()
    }

    /// Removes a listener. Fails if there is none; ThingSpace's behaviour is not documented.
    pub(crate) fn deregister(
        &mut self,
        account: &str,
        service: &str,
    ) -> Result<&'static str, Fault> {
        let service = parse_service(service)?;
        let removed =
            self.accounts.get_mut(account).and_then(|listeners| listeners.remove(service));
        self.accounts.retain(|_, listeners| !listeners.is_empty());
        removed
            .map(|_| service)
            .ok_or_else(|| Fault::new(code::UNEXPECTED, "No such listener is registered"))
    }

    /// Returns the listener of an account for a service. During the credentials lag, it has the
    /// previous credentials (see docs/thingspace-facts.md, section 4.2).
    pub(crate) fn find(&self, account: &str, service: &str) -> Option<CallbackListener> {
        let registered = self.accounts.get(account)?.get(service)?;
        let listener = registered.listener.clone();
        Some(match &registered.previous {
            Some((previous, until)) if Instant::now() < *until => {
                CallbackListener { url: listener.url, ..previous.clone() }
            }
            _ => listener,
        })
    }

    /// Returns the only account with listeners, for a request without an account.
    pub(crate) fn only_account(&self) -> Result<String, Fault> {
        let mut names = self.accounts.keys();
        match (names.next(), names.next()) {
            (Some(_), Some(_)) => {
                let message = "The user has several accounts: the request must name one";
                Err(Fault::new(code::MULTIPLE_ACCOUNTS, message))
            }
            (only, _) => Ok(only.cloned().unwrap_or_default()),
        }
    }
}

impl RegistrationBody<'_> {
    fn to_listener(&self, any_port: bool) -> Result<CallbackListener, Fault> {
        let url = required_text(self.url, "url")?;
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Fault::new(code::REQUEST_UNDEFINED, "The url is not valid"))?;
        // The ports that ThingSpace calls (see docs/thingspace-facts.md, section 4.2). Tests use
        // any free port on loopback.
        let port = url.port_or_known_default().unwrap_or_default();
        let is_called = matches!(port, 80 | 443 | 9001..=9006 | 50551..=50559 | 28200..=28220);
        if !(any_port || is_loopback_url(&url) || is_called) {
            let message = "The port must be 80, 443, 9001-9006, 50551-50559 or 28200-28220";
            return Err(Fault::new(code::REQUEST_UNDEFINED, message));
        }
        let mut credentials = [self.username, self.password].into_iter().flatten();
        if credentials.any(|text| text.chars().count() > MAX_CREDENTIAL) {
            let message = "username and password have at most 40 characters";
            return Err(Fault::new(code::REQUEST_UNDEFINED, message));
        }
        Ok(CallbackListener {
            url,
            username: self.username.map(str::to_owned),
            password: self.password.map(str::to_owned),
        })
    }
}

fn parse_service(service: &str) -> Result<&'static str, Fault> {
    SERVICES
        .split(' ')
        .find(|name| *name == service)
        .ok_or_else(|| Fault::new(code::REQUEST_UNDEFINED, "The callback service is not known"))
}
