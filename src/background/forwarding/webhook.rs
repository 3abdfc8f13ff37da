//! Delivers callbacks to the webhook: one POST for each, as ThingSpace sends it.

use std::{iter, sync::Arc, time::Duration};

use reqwest::{Client, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::{
    background::{
        file_reloader::{FileReloader, ReloadingCredentials, ReloadingSecret},
        url_origin::url_origin,
    },
    config::CallbacksConfig,
    journal::{Fingerprinter, QueuedForward},
    telemetry::DropReason,
    thingspace::no_retry_client,
};

/// Header of a forwarded callback, and of the response that rejects it as a loop.
///
/// The callback listener rejects requests with its own id. A loop through another gateway ends even if
/// that one replaces the header: the callback comes back as a duplicate, and duplicates are not
/// forwarded.
pub const FORWARDED_BY: &str = "thingspace-gateway-forwarded";
/// Time for a delivery. ThingSpace itself waits about 4 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read of a response body, so that its connection is reusable.
const MAX_RESPONSE_BODY: usize = 16 * 1024;
/// Time for a response body. A longer one would block a delivery although the status has arrived.
const RESPONSE_DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
/// Maximum number of seconds of a `Retry-After` header.
const MAX_RETRY_AFTER: u64 = 60 * 60;
/// Placeholder for the name of the callback service in the URL.
const SERVICE_PLACEHOLDER: &str = "{service}";

/// The settings of the webhook. Their files are re-read.
pub(super) struct DestinationSettings {
    url: Arc<ReloadingSecret>,
    credentials: Option<ReloadingCredentials>,
}

/// URL and credentials of the webhook at one moment.
pub(super) struct Destination {
    /// May contain `{service}` and secrets.
    url: Arc<SecretString>,
    /// User name and password for the body.
    credentials: Option<(Arc<SecretString>, Arc<SecretString>)>,
}

/// The client of a destination.
pub(super) struct Webhook {
    pub(super) destination: Destination,
    /// `None` if it could not be built.
    pub(super) client: Option<Client>,
    /// Id of this gateway for the loop header.
    forwarder_id: String,
    /// Scheme, host and port, for the log.
    pub(super) url_origin: String,
}

/// A failed delivery. Contains neither the URL nor the response.
#[derive(Debug)]
pub(super) enum DeliveryError {
    /// No retry can succeed. Holds the metric reason.
    Permanent(DropReason),
    /// The webhook rejects this callback but may accept others.
    Rejected {
        reason: &'static str,
        /// Minimum delay before this callback is sent again.
        retry_after: Duration,
    },
    /// The webhook accepts no callbacks at the moment.
    Unavailable {
        reason: &'static str,
        /// Minimum delay before anything is sent.
        retry_after: Duration,
    },
}

/// Returns the id of the gateway in [`FORWARDED_BY`]: 32 hexadecimal digits.
///
/// The id derives from a random key of the journal. All processes that use the journal have the same
/// id, also after a restart, and the id does not reveal the key.
pub fn forwarder_id(journal: &dyn Fingerprinter) -> String {
    let mac = journal.fingerprint(FORWARDED_BY.as_bytes());
    mac.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

// === impl DestinationSettings ===

impl DestinationSettings {
    /// Reads the settings. Returns `None` if `callbacks.forward_url` is not set.
    pub(super) fn load(callbacks: &CallbacksConfig, files: &mut FileReloader) -> Option<Self> {
        let url = files.secret(callbacks.forward_url.as_ref()?);
        let (username, password) = (callbacks.username.as_ref(), callbacks.password.as_ref());
        Some(Self { url, credentials: files.credentials(username, password) })
    }

    pub(super) fn current(&self) -> Destination {
        let credentials = self.credentials.as_ref();
        let credentials =
            credentials.map(|current| (current.username.current(), current.password.current()));
        Destination { url: self.url.current(), credentials }
    }
}

// === impl Destination ===

impl Destination {
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let credentials = self.credentials.iter();
        let credentials = credentials.flat_map(|(username, password)| [username, password]);
        iter::once(&self.url).chain(credentials).map(|secret| secret.expose_secret())
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.secrets().eq(other.secrets())
    }
}

/// Inserts the service into the URL. The configuration check has validated the URL, but its file may
/// have changed since.
fn expand_template(template: &str, service: &str) -> Result<Url, DeliveryError> {
    Url::parse(&template.replace(SERVICE_PLACEHOLDER, service))
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            DeliveryError::unavailable("callbacks.forward_url is not an http or https URL")
        })
}

// === impl Webhook ===

impl Webhook {
    pub(super) fn new(destination: Destination, forwarder_id: String) -> Self {
        let url = expand_template(destination.url.expose_secret(), "CarrierService").ok();
        let client = url.as_ref().and_then(|url| {
            let user_agent = concat!("thingspace-gateway/", env!("CARGO_PKG_VERSION"));
            no_retry_client(url, TIMEOUT).user_agent(user_agent).build().ok()
        });
        let url_origin = url.map(|url| url_origin(url.as_str())).unwrap_or_default();
        Self { destination, client, forwarder_id, url_origin }
    }

    /// Sends a callback once.
    pub(super) async fn deliver(&self, forward: &QueuedForward) -> Result<(), DeliveryError> {
        // Before the errors that drop the callback: with another URL, it may be deliverable.
        let client = self.client.as_ref().ok_or_else(|| {
            DeliveryError::unavailable("callbacks.forward_url is not a usable http or https URL")
        })?;
        let body = forward.body.as_deref();
        let body = body.ok_or(DeliveryError::Permanent(DropReason::BodyRemoved))?;
        let url = self.url(forward)?;
        let response = client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(FORWARDED_BY, &self.forwarder_id)
            .body(insert_credentials(body, self.destination.credentials.as_ref()))
            .send()
            .await;
        let mut response = response.map_err(|error| DeliveryError::from_reqwest(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let is_loop = response
            .headers()
            .get(FORWARDED_BY)
            .is_some_and(|id| id.as_bytes() == self.forwarder_id.as_bytes());
        let drain = async {
            let mut read = 0;
            while let Ok(Some(chunk)) = response.chunk().await
                && read < MAX_RESPONSE_BODY
            {
                read += chunk.len();
            }
        };
        let _drained_or_not = timeout(RESPONSE_DRAIN_TIMEOUT, drain).await;
        let rejected = |reason| Err(DeliveryError::Rejected { reason, retry_after });
        let unavailable = |reason| Err(DeliveryError::Unavailable { reason, retry_after });
        match status.as_u16() {
            200..=299 => Ok(()),
            300..=399 => rejected("webhook returned a redirect, which is not followed"),
            // All callbacks carry the same credentials: repeated attempts may lock the user.
            401 | 403 => unavailable("webhook returned 401 or 403"),
            404 | 410 => rejected("webhook returned 404 or 410"),
            409 if is_loop => Err(DeliveryError::Permanent(DropReason::Loop)),
            429 => unavailable("webhook returned 429"),
            400..=499 => rejected("webhook returned another 4xx"),
            _ => unavailable("webhook returned 5xx"),
        }
    }

    fn url(&self, forward: &QueuedForward) -> Result<Url, DeliveryError> {
        let template = self.destination.url.expose_secret();
        let service = forward.service.as_ref().map(|service| service.as_str());
        // The path of a callback need not name a valid service.
        if service.is_none() && template.contains(SERVICE_PLACEHOLDER) {
            return Err(DeliveryError::Permanent(DropReason::NoServiceName));
        }
        expand_template(template, service.unwrap_or_default())
    }
}

/// Reads a `Retry-After` in seconds. Its date form would depend on the webhook's clock.
fn retry_after(headers: &header::HeaderMap) -> Duration {
    let value = headers.get(header::RETRY_AFTER);
    let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Inserts the credentials as the first members of the body, as ThingSpace does. The stored body has
/// none.
fn insert_credentials(
    body: &str,
    credentials: Option<&(Arc<SecretString>, Arc<SecretString>)>,
) -> String {
    let (Some((username, password)), Some(rest)) = (credentials, body.strip_prefix('{')) else {
        return body.to_owned();
    };
    let text = |secret: &SecretString| Value::from(secret.expose_secret()).to_string();
    let comma = if rest.trim_start() == "}" { "" } else { "," };
    let (username, password) = (text(username), text(password));
    format!(r#"{{"username":{username},"password":{password}{comma}{rest}"#)
}

// === impl DeliveryError ===

impl DeliveryError {
    fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, retry_after: Duration::ZERO }
    }

    /// Does not use the text of the error, which contains the URL.
    fn from_reqwest(error: &reqwest::Error) -> Self {
        Self::unavailable(if error.is_connect() {
            "cannot connect to the webhook"
        } else if error.is_timeout() {
            "webhook did not respond in time"
        } else {
            "connection closed before the response"
        })
    }
}

#[cfg(test)]
mod tests;
