//! Registers the callback listener and stores the URLs that it replaces.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    background::url_origin::url_origin,
    domain::{clock::Clock, newtypes::AccountName},
    journal::{Journal, JournalError},
    telemetry::{Instruments, RegistrationOutcome},
    thingspace::{ListenerRegistration, ThingSpace},
};

/// Maximum number of replaced URLs that are stored for each service.
const MAX_DISPLACED: usize = 16;

/// Replaces registrations.
pub(super) struct Registrar {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) thingspace: Arc<ThingSpace>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) instruments: Instruments,
}

impl Registrar {
    /// Registers a listener. Stores the URL that it replaces first. Never deregisters: callbacks
    /// between a deregistration and the next registration would be lost.
    pub(super) async fn register(
        &self,
        account: &AccountName,
        new: &ListenerRegistration,
        displaced: Option<&ListenerRegistration>,
    ) -> Result<(), String> {
        if let Some(displaced) = displaced {
            let stored = self.store_displaced(account, &new.service, &displaced.url).await;
            stored.map_err(|error| format!("cannot store the replaced URL: {error}"))?;
        }
        let result = self.thingspace.register_listener(account, new).await;
        self.instruments.registration_attempt(match (&result, displaced) {
            (Err(_), _) => RegistrationOutcome::Failed,
            (Ok(()), Some(_)) => RegistrationOutcome::Replaced,
            (Ok(()), None) => RegistrationOutcome::Registered,
        });
        if let (Ok(()), Some(displaced)) = (&result, displaced) {
            tracing::warn!(
                account = account.as_str(),
                service = new.service.as_str(),
                url_origin = url_origin(displaced.url.expose_secret()),
                "replaced the registration of another callback listener"
            );
        }
        result.map_err(|error| error.to_string())
    }

    /// Stores a whole URL in the journal: only the gateway's user can read its secrets there.
    async fn store_displaced(
        &self,
        account: &AccountName,
        service: &str,
        url: &SecretString,
    ) -> Result<(), JournalError> {
        let key = format!("displaced.{account}.{service}");
        let stored = self.journal.get_kv(key.clone()).await?;
        let mut urls: Vec<Value> = serde_json::from_slice(&stored).unwrap_or_default();
        let url = url.expose_secret();
        // A URL that is replaced again and again must not displace the others.
        urls.retain(|other| other.get("url").and_then(Value::as_str) != Some(url));
        urls.push(json!({ "displace_time_us": self.clock.now().as_micros(), "url": url }));
        let urls = urls.split_off(urls.len().saturating_sub(MAX_DISPLACED));
        self.journal.put_kv(key, Value::Array(urls).to_string().into()).await
    }
}
