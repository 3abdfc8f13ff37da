//! Delivers callbacks to the webhook: one POST for each, as ThingSpace sends it.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::{
    background::{
        forwarding::{destination::Destination, loop_header::FORWARDED_BY},
        url_origin::url_origin,
    },
    journal::QueuedForward,
    telemetry::DropReason,
    thingspace::no_retry_client,
};

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

/// The HTTP client, rebuilt when the URL changes.
pub(super) struct WebhookClient {
    /// Id of this gateway for the loop header.
    forwarder_id: Arc<str>,
    client: Option<(Arc<SecretString>, Client)>,
}

/// Client, URL and credentials for a batch.
pub(super) struct WebhookTarget {
    forwarder_id: Arc<str>,
    client: Client,
    template: Arc<SecretString>,
    credentials: Option<(Arc<SecretString>, Arc<SecretString>)>,
    /// Scheme, host and port, for the log.
    pub(super) url_origin: String,
}

/// A failed delivery. Contains neither the URL nor the response.
#[derive(Debug, Clone)]
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

// === impl WebhookClient ===

impl WebhookClient {
    pub(super) fn new(forwarder_id: String) -> Self {
        Self { forwarder_id: forwarder_id.into(), client: None }
    }

    pub(super) fn target(
        &mut self,
        destination: &Destination,
    ) -> Result<WebhookTarget, DeliveryError> {
        let template = destination.url.expose_secret();
        let url = expand_template(template, "CarrierService")?;
        let client = match &self.client {
            Some((current, client)) if current.expose_secret() == template => client.clone(),
            _ => {
                let client = build_client(&url)?;
                self.client = Some((Arc::clone(&destination.url), client.clone()));
                client
            }
        };
        Ok(WebhookTarget {
            forwarder_id: Arc::clone(&self.forwarder_id),
            client,
            template: Arc::clone(&destination.url),
            credentials: destination.credentials.clone(),
            url_origin: url_origin(url.as_str()),
        })
    }
}

/// Builds a client that neither follows redirects nor retries.
fn build_client(url: &Url) -> Result<Client, DeliveryError> {
    let builder = no_retry_client(url, TIMEOUT)
        .user_agent(concat!("thingspace-gateway/", env!("CARGO_PKG_VERSION")));
    let built = builder.build();
    built.map_err(|_| DeliveryError::unavailable("cannot build the HTTP client"))
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

// === impl WebhookTarget ===

impl WebhookTarget {
    /// Sends a callback once.
    pub(super) async fn deliver(&self, forward: &QueuedForward) -> Result<(), DeliveryError> {
        let body =
            forward.body.as_deref().ok_or(DeliveryError::Permanent(DropReason::BodyRemoved))?;
        let response = self
            .client
            .post(self.url(forward)?)
            .header(header::CONTENT_TYPE, "application/json")
            .header(FORWARDED_BY, &*self.forwarder_id)
            .body(insert_credentials(body, self.credentials.as_ref()))
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
        let template = self.template.expose_secret();
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
    let comma = if rest == "}" { "" } else { "," };
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
