//! Where ThingSpace sends callbacks: one address for each service of an account ("List" and "Register
//! Callback Listeners").

use std::{fmt, time::Duration};

use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{ThingSpace, error_body::get, lookups::LookupError};
use crate::domain::newtypes::AccountName;

const LISTENERS: &str = "/m2m/v1/callbacks/{account}";
/// Registrations of one account that are read; there are some 25 services.
const MAX_LISTED: usize = 200;
/// Characters of a text in a registration that are read.
const MAX_TEXT: usize = 4_096;

/// How long a call waits for its turn, in all, and at least each time.
const RATE_LIMIT_TIMEOUT: Duration = Duration::from_secs(120);
const SHORTEST: Duration = Duration::from_millis(100);

/// A callback listener as it is registered, or is to be. All of it but the service may be secret:
/// an address often has one in its path, and the list shows passwords in clear.
#[derive(Clone)]
pub struct ListenerRegistration {
    /// The callback service.
    pub service: String,
    /// Where its callbacks go.
    pub url: SecretString,
    /// What they carry.
    pub username: Option<SecretString>,
    /// What they carry.
    pub password: Option<SecretString>,
}

// === impl ThingSpace ===

impl ThingSpace {
    /// The listeners of an account. One that was registered through SOAP is not among them.
    ///
    /// # Errors
    ///
    /// [`LookUpError`], also when there is a registration in the answer that cannot be read: that
    /// somebody is registered must not be overlooked.
    pub async fn list_listeners(
        &self,
        account: &AccountName,
    ) -> Result<Vec<ListenerRegistration>, LookupError> {
        let build_request = || self.http.default_client.get(self.listeners_url(account));
        let body = self
            .send_lookup_waiting(&Method::GET, &build_request)
            .await?;
        // Where none is registered an empty body was seen.
        if body.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let unanswered = |why: &str| LookupError::NoAnswer(why.to_owned());
        let listed = match serde_json::from_slice(&body) {
            Ok(Value::Array(listed)) if listed.len() <= MAX_LISTED => listed,
            _ => return Err(unanswered("no list of listeners")),
        };
        let read = listed.iter().map(ListenerRegistration::from_json);
        let read: Option<Vec<ListenerRegistration>> = read.collect();
        read.ok_or_else(|| unanswered("a listener that cannot be read"))
    }

    /// Registers a listener, in place of whichever is registered for the service. It may be repeated.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; after `Unanswered` it may be registered or not.
    pub async fn register_listener(
        &self,
        account: &AccountName,
        listener: &ListenerRegistration,
    ) -> Result<(), LookupError> {
        let body = listener.body();
        let url = self.listeners_url(account);
        let build_request = || {
            self.http
                .default_client
                .post(url.clone())
                .body(body.clone())
        };
        let asked = self
            .send_lookup_waiting(&Method::POST, &build_request)
            .await;
        match asked {
            Err(LookupError::Refused(why)) if listener.is_quoted_in(&why) => {
                Err(LookupError::Refused("<hidden>".into()))
            }
            asked => asked.map(drop),
        }
    }

    /// Asks when it is its turn among the look-ups, which do not wait for each other.
    async fn send_lookup_waiting(
        &self,
        method: &Method,
        build_request: &(dyn Fn() -> RequestBuilder + Sync),
    ) -> Result<Vec<u8>, LookupError> {
        let deadline = Instant::now() + RATE_LIMIT_TIMEOUT;
        loop {
            match self.send_lookup(method, LISTENERS, build_request).await {
                Err(LookupError::Throttled(wait)) if Instant::now() + wait < deadline => {
                    sleep(wait.max(SHORTEST)).await;
                }
                answer => return answer,
            }
        }
    }

    fn listeners_url(&self, account: &AccountName) -> reqwest::Url {
        // An account's name needs no escaping.
        self.endpoint
            .join(&LISTENERS.replace("{account}", account.as_str()))
    }
}

// === impl Registration ===

impl ListenerRegistration {
    fn from_json(listed: &Value) -> Option<Self> {
        let members = listed.as_object()?;
        let secret = |name| Some(SecretString::from(text(members, name)?));
        Some(Self {
            service: text(members, "serviceName")?.to_owned(),
            url: secret("url")?,
            username: secret("username"),
            password: secret("password"),
        })
    }

    fn body(&self) -> String {
        let mut body = json!({ "name": self.service, "url": self.url.expose_secret() });
        let login = [("username", &self.username), ("password", &self.password)];
        for (name, value) in login {
            if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
                members.insert(name.to_owned(), value.expose_secret().into());
            }
        }
        body.to_string()
    }

    /// Whether ThingSpace's words repeat what nobody should see.
    fn is_quoted_in(&self, words: &str) -> bool {
        let last = self.url.expose_secret().rsplit('/').next();
        let login = [&self.username, &self.password].into_iter().flatten();
        last.filter(|last| *last != self.service)
            .into_iter()
            .chain(login.map(ExposeSecret::expose_secret))
            .any(|secret| !secret.is_empty() && words.contains(secret))
    }
}

impl fmt::Debug for ListenerRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// A text of a length that can be meant.
fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    let text = get(members, name)?.as_str()?;
    (text.len() <= MAX_TEXT).then_some(text)
}
