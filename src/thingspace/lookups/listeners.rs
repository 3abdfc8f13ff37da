//! The registration of a callback listener.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::thingspace::json::member;

/// Maximum length of a text in a registration, in bytes.
const MAX_TEXT_LENGTH: usize = 4_096;

/// The callback URL of a service, and the credentials of its callbacks. Everything but the service may be
/// secret: a URL may contain a secret path, and ThingSpace lists passwords in plain text.
#[derive(Debug, Clone)]
pub struct ListenerRegistration {
    /// The callback service.
    pub service: String,
    /// The URL.
    pub url: SecretString,
    /// The user name that callbacks contain.
    pub username: Option<SecretString>,
    /// The password that callbacks contain.
    pub password: Option<SecretString>,
}

impl ListenerRegistration {
    /// Returns `None` if the service or the URL is missing.
    pub(crate) fn parse(listed: &Value) -> Option<Self> {
        let text = |name| {
            let text = member(listed, name)?.as_str()?;
            (text.len() <= MAX_TEXT_LENGTH).then_some(text)
        };
        Some(Self {
            service: text("serviceName")?.to_owned(),
            url: text("url")?.into(),
            username: text("username").map(SecretString::from),
            password: text("password").map(SecretString::from),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut body = json!({ "name": self.service, "url": self.url.expose_secret() });
        let credentials = [("username", &self.username), ("password", &self.password)];
        for (name, value) in credentials {
            if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
                members.insert(name.to_owned(), value.expose_secret().into());
            }
        }
        body
    }

    /// Returns everything that must be redacted in a response: the URL, its last segment unless it is the
    /// service, and the credentials.
    pub(crate) fn secret_values(&self) -> Vec<&str> {
        let url = self.url.expose_secret();
        let segment = url.rsplit('/').next();
        let credentials = [&self.username, &self.password].into_iter().flatten();
        segment
            .filter(|segment| *segment != self.service)
            .into_iter()
            .chain([url])
            .chain(credentials.map(ExposeSecret::expose_secret))
            .collect()
    }
}
