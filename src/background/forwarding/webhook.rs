//! The webhook: one POST for each callback, as ThingSpace would have sent it.

use std::time::Duration;

use reqwest::{Client, header, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use thingspace_loopback::is_loopback_url;
use tokio::time::timeout;
use url::Url;

use super::{Destination, loop_header::FORWARDED_BY};
use crate::journal::QueuedForward;

/// How long a try may take. ThingSpace itself waits some 4 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an answer, so that its connection can be used again.
const MAX_ANSWER: usize = 16 * 1024;
/// How long is waited for the rest of an answer. Its head has said it all: the connection is dropped
/// then, as what is slow to end must not hold a place.
const RESPONSE_DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
/// A longer wait is not believed.
const MAX_RETRY_AFTER: u64 = 60 * 60;
/// What stands for the service's name in the address.
const SERVICE_PLACEHOLDER: &str = "{service}";

/// Metric reason of a callback that came back to this gateway.
pub(super) const LOOP: &str = "loop";

/// The HTTP client, rebuilt when the URL changes.
pub(super) struct WebhookClient {
    /// Id of this gateway for the loop header.
    forwarder_id: String,
    client: Option<(SecretString, Client)>,
}

/// What a page is sent by.
pub(super) struct WebhookTarget {
    forwarder_id: String,
    client: Client,
    template: SecretString,
    credentials: Option<(SecretString, SecretString)>,
    /// Scheme, host and port: what may be shown of the address.
    pub(super) url_origin: String,
}

/// Why a callback was not passed on. Says nothing of the address or of what was answered.
#[derive(Debug, Clone)]
pub(super) enum DeliveryError {
    /// It will not be: the word that metrics have for it.
    Permanent(&'static str),
    /// The webhook does not take this one; it may take others.
    Rejected {
        reason: &'static str,
        /// How long it does not want to see it.
        retry_after: Duration,
    },
    /// The webhook takes nothing now.
    Unavailable {
        reason: &'static str,
        /// How long it wants to be left alone.
        retry_after: Duration,
    },
}

// === impl Webhook ===

impl WebhookClient {
    pub(super) fn new(forwarder_id: String) -> Self {
        Self {
            forwarder_id,
            client: None,
        }
    }

    pub(super) fn target(
        &mut self,
        destination: &Destination,
    ) -> Result<WebhookTarget, DeliveryError> {
        let template = destination.url.expose_secret();
        // The settings were checked, and a file may have changed since.
        let url = expand_template(template, "CarrierService");
        let url =
            url.ok_or_else(|| DeliveryError::unavailable("callbacks.forward_url is no address"))?;
        let client = match &self.client {
            Some((known, client)) if known.expose_secret() == template => client.clone(),
            _ => {
                let client = client(&url)?;
                self.client = Some((destination.url.clone(), client.clone()));
                client
            }
        };
        Ok(WebhookTarget {
            forwarder_id: self.forwarder_id.clone(),
            client,
            template: destination.url.clone(),
            credentials: destination.credentials.clone(),
            url_origin: url_origin(&url),
        })
    }
}

/// A client that follows nobody and repeats nothing by itself.
fn client(url: &Url) -> Result<Client, DeliveryError> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("thingspace-gateway/", env!("CARGO_PKG_VERSION")));
    // Plain http asks for no authorities, and a bare system has none.
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    // A proxy cannot reach our own loopback interface.
    if is_loopback_url(url) {
        builder = builder.no_proxy();
    }
    let built = builder.build();
    built.map_err(|_| DeliveryError::unavailable("there is no client for it"))
}

fn expand_template(template: &str, service: &str) -> Option<Url> {
    let url = Url::parse(&template.replace(SERVICE_PLACEHOLDER, service)).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn url_origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}://{host}:{port}", url.scheme())
}

// === impl Line ===

impl WebhookTarget {
    /// Sends one, once.
    pub(super) async fn deliver(&self, forward: &QueuedForward) -> Result<(), DeliveryError> {
        let body = forward
            .body
            .as_deref()
            .ok_or(DeliveryError::Permanent("trimmed"))?;
        let template = self.template.expose_secret();
        let service = forward.service.as_ref().map(|service| service.as_str());
        // Only a path that is no service's lacks the name.
        let service = match service {
            None if template.contains(SERVICE_PLACEHOLDER) => {
                return Err(DeliveryError::Permanent("no_service"));
            }
            service => service.unwrap_or_default(),
        };
        let url = expand_template(template, service);
        let url =
            url.ok_or_else(|| DeliveryError::unavailable("callbacks.forward_url is no address"))?;
        let sent = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(FORWARDED_BY, &self.forwarder_id)
            .body(insert_credentials(body, self.credentials.as_ref()))
            .send()
            .await;
        let mut response = sent.map_err(|error| DeliveryError::from_reqwest(&error))?;
        let status = response.status();
        let wait = retry_after(response.headers());
        let is_loop = response
            .headers()
            .get(FORWARDED_BY)
            .is_some_and(|id| id.as_bytes() == self.forwarder_id.as_bytes());
        let rest = async {
            let mut read = 0;
            while let Ok(Some(chunk)) = response.chunk().await
                && read < MAX_ANSWER
            {
                read += chunk.len();
            }
        };
        let _read_or_not = timeout(RESPONSE_DRAIN_TIMEOUT, rest).await;
        let refused = |why| {
            Err(DeliveryError::Rejected {
                reason: why,
                retry_after: wait,
            })
        };
        let down = |why| {
            Err(DeliveryError::Unavailable {
                reason: why,
                retry_after: wait,
            })
        };
        match status.as_u16() {
            200..=299 => Ok(()),
            300..=399 => refused("it answered with a redirect, which is not followed"),
            // They all carry the same pair: who tries a wrong one too often may be locked out.
            401 | 403 => down("it answered 401 or 403"),
            404 | 410 => refused("it answered 404 or 410"),
            409 if is_loop => Err(DeliveryError::Permanent(LOOP)),
            429 => down("it answered 429"),
            400..=499 => refused("it answered with another 4xx"),
            _ => down("it answered 5xx"),
        }
    }
}

/// Seconds; its date form would need the two clocks to agree.
fn retry_after(headers: &header::HeaderMap) -> Duration {
    let value = headers.get(header::RETRY_AFTER);
    let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// The body with the pair in it, first as ThingSpace has it. The journal keeps an object without.
fn insert_credentials(body: &str, login: Option<&(SecretString, SecretString)>) -> String {
    let (Some((username, password)), Some(rest)) = (login, body.strip_prefix('{')) else {
        return body.to_owned();
    };
    let text = |secret: &SecretString| Value::from(secret.expose_secret()).to_string();
    let comma = if rest == "}" { "" } else { "," };
    let (username, password) = (text(username), text(password));
    format!(r#"{{"username":{username},"password":{password}{comma}{rest}"#)
}

// === impl Failure ===

impl DeliveryError {
    fn unavailable(why: &'static str) -> Self {
        Self::Unavailable {
            reason: why,
            retry_after: Duration::ZERO,
        }
    }

    /// Not the error's own text: that has the URL in it.
    fn from_reqwest(error: &reqwest::Error) -> Self {
        Self::unavailable(if error.is_connect() {
            "no connection could be made"
        } else if error.is_timeout() {
            "it did not answer in time"
        } else {
            "the connection broke before it had answered"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_inserted_first_and_the_rest_of_the_body_is_unchanged() {
        let login = (SecretString::from("us\"er"), SecretString::from("pw"));
        let insert = |body: &str| insert_credentials(body, Some(&login));
        assert_eq!(
            insert(r#"{"requestId":"r","x":1.10}"#),
            r#"{"username":"us\"er","password":"pw","requestId":"r","x":1.10}"#
        );
        assert_eq!(insert("{}"), r#"{"username":"us\"er","password":"pw"}"#);
        assert_eq!(insert_credentials(r#"{"a":1}"#, None), r#"{"a":1}"#);
    }

    #[test]
    fn only_scheme_host_and_port_of_the_webhook_are_shown() {
        let url =
            expand_template("https://old.example.com/hooks/{service}?token=hush", "X").unwrap();
        assert_eq!(url.path(), "/hooks/X");
        assert_eq!(url_origin(&url), "https://old.example.com:443");
    }
}
