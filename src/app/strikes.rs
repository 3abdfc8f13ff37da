//! Refused log-ins, counted in the journal.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use crate::{
    journal::Journal,
    thingspace::{Credentials, StrikeBook},
};

/// Keeps the count by a name that only this journal can make of the credentials.
pub(super) struct InJournal(pub(super) Arc<dyn Journal>);

impl InJournal {
    fn name(&self, credentials: &Credentials) -> String {
        // The parts are told apart by their lengths: no two sets of credentials read alike.
        let content: Vec<u8> = [
            &credentials.app_key,
            &credentials.app_secret,
            &credentials.uws_username,
            &credentials.uws_password,
        ]
        .into_iter()
        .flat_map(|secret| {
            let text = secret.expose_secret().as_bytes();
            [&text.len().to_be_bytes()[..], text].concat()
        })
        .collect();
        let print = self.0.fingerprint(&content);
        let hex: String = print.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("strikes.{hex}")
    }
}

#[async_trait]
impl StrikeBook for InJournal {
    async fn strikes(&self, credentials: &Credentials) -> Result<u32, String> {
        let note = self.0.note(self.name(credentials)).await;
        let note = note.map_err(|error| error.to_string())?;
        Ok(note.first().copied().map_or(0, u32::from))
    }

    async fn record(&self, credentials: &Credentials, strikes: u32) -> Result<(), String> {
        let value = match u8::try_from(strikes).unwrap_or(u8::MAX) {
            0 => Vec::new(),
            strikes => vec![strikes],
        };
        let kept = self.0.put_note(self.name(credentials), value).await;
        kept.map_err(|error| error.to_string())
    }
}
