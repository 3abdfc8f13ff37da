//! Sends lookups: within the rate limit, authenticated, and again if a token or session was refused.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    domain::refusal::{Refusal, RefusalKind},
    thingspace::{
        classify,
        error::LookupError,
        error_body::ErrorBody,
        error_codes::{self, ErrorMeaning},
        http::{HttpClient, UpstreamResponse},
        rate_limit::RateLimit,
        redactor::Redactor,
        session::{AuthHeaders, SessionManager},
    },
};

/// Pause after a throttled lookup without `Retry-After`.
const DEFAULT_THROTTLE_PAUSE: Duration = Duration::from_secs(60);
/// Minimum delay before a throttled lookup is retried.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Number of repetitions after refused tokens and sessions.
const MAX_REPLAYS: u32 = 2;
/// Maximum length of an error code, in characters.
const MAX_CODE_LENGTH: usize = 100;

pub(crate) struct LookupClient {
    pub(crate) http: HttpClient,
    pub(crate) session_manager: Arc<SessionManager>,
    pub(crate) rate_limit: RateLimit,
}

/// A lookup; by default a GET request that does not wait for the rate limit.
#[derive(Default)]
pub(crate) struct LookupRequest<'a> {
    pub(crate) method: Method,
    /// The path below the base URL, with placeholders.
    pub(crate) template: &'static str,
    /// The values of the placeholders.
    pub(crate) values: &'a [&'a str],
    pub(crate) body: Option<Value>,
    /// Maximum time to wait for the rate limit.
    pub(crate) max_wait: Duration,
    /// Texts to redact in an error code.
    pub(crate) hidden: Vec<&'a str>,
}

impl LookupClient {
    /// Sends a lookup and parses the response as JSON.
    pub(crate) async fn send_json(&self, lookup: LookupRequest<'_>) -> Result<Value, LookupError> {
        let body = self.send(lookup).await?;
        serde_json::from_slice(&body)
            .map_err(|_| LookupError::NoResponse("the response is not JSON".into()))
    }

    /// Sends a lookup and returns the body of a 2xx response.
    pub(crate) async fn send(&self, lookup: LookupRequest<'_>) -> Result<Vec<u8>, LookupError> {
        let deadline = Instant::now() + lookup.max_wait;
        let mut replays = 0;
        loop {
            let permit = self.rate_limit.acquire(deadline).await;
            permit.map_err(LookupError::Throttled)?;
            let auth = self.session_manager.valid_headers(None).await;
            let auth = auth.map_err(|error| LookupError::LoginFailed(error.into()))?;
            let response = self.exchange(&lookup, &auth).await?;
            if response.status.is_success() {
                return Ok(response.body);
            }
            let error = ErrorBody::parse(&response.body);
            if classify::is_throttled(&response, error.as_ref()) {
                let delay = response.retry_after.unwrap_or(DEFAULT_THROTTLE_PAUSE);
                self.rate_limit.pause(delay);
                if Instant::now() + delay >= deadline {
                    return Err(LookupError::Throttled(delay));
                }
                sleep(delay.max(MIN_RETRY_DELAY)).await;
            } else if let Some(stale) = classify::stale_auth(&response, error.as_ref()) {
                if replays == MAX_REPLAYS {
                    let detail = "ThingSpace refused a freshly issued token or session";
                    let refusal = Refusal::new(RefusalKind::Credentials, detail);
                    return Err(LookupError::LoginFailed(refusal));
                }
                replays += 1;
                self.session_manager.discard(&auth, stale);
            } else {
                let hidden = lookup.hidden.iter().copied().chain(auth.secrets());
                return Err(lookup_error(&response, error, &Redactor::new(hidden)));
            }
        }
    }

    async fn exchange(
        &self,
        lookup: &LookupRequest<'_>,
        auth: &AuthHeaders,
    ) -> Result<UpstreamResponse, LookupError> {
        let method = lookup.method.clone();
        let mut request = self.http.request(method, lookup.template, lookup.values);
        if let Some(body) = &lookup.body {
            request = request.body(body.to_string());
        }
        let request = auth.add_to(request);
        let response = self.http.send(request, lookup.template, None).await;
        response.map_err(|error| LookupError::NoResponse(error.reason().to_owned()))
    }
}

fn lookup_error(
    response: &UpstreamResponse,
    error: Option<ErrorBody>,
    redactor: &Redactor,
) -> LookupError {
    let status = response.status.as_u16();
    match error {
        // ThingSpace has no such lookup, whatever the format of the body.
        None if matches!(status, 404 | 405 | 410) => LookupError::Refused { status, code: None },
        // Only the code is reported: the text may contain anything.
        Some(error)
            if response.status.is_client_error()
                && error_codes::classify_error(&error) != Some(ErrorMeaning::Uncertain) =>
        {
            let code = redactor.redact_text(error.reported_code(), MAX_CODE_LENGTH);
            LookupError::Refused { status, code: Some(code) }
        }
        _ => LookupError::NoResponse(format!("ThingSpace responded {status}")),
    }
}
