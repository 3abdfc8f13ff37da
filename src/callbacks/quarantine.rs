//! The quarantine: unusable callbacks with the correct path secret.
//!
//! ThingSpace rarely sends a callback again. An operator can therefore replay a quarantined callback
//! once the settings are correct.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};

use crate::{
    background::ReloadingCredentials,
    callbacks::{
        auth::PathAuth, body::BodyPermit, payload, response::append_error, routes::CallbackPath,
        state::AppState,
    },
    domain::newtypes::CallbackService,
    journal::{
        Fingerprinter, JournalError, QuarantineLimits, QuarantineStore, QuarantinedCallback,
        ReceivedCallback, Stored,
    },
    telemetry::RejectionReason,
};

/// Age at which a reviewed callback may be deleted to make space.
const REVIEWED_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Number of callbacks that a replay of all reads at a time.
const PAGE: usize = 50;

/// Manages quarantined callbacks.
#[derive(Clone)]
pub struct Quarantine {
    pub(super) state: Arc<AppState>,
    /// The quarantined callbacks.
    pub store: Arc<dyn QuarantineStore>,
}

/// Result of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The callback is stored as a result.
    Stored(Stored),
    /// The callback is still unusable, for this reason.
    StillUnusable(&'static str),
    /// No quarantined callback has this id.
    NotFound,
}

/// Results of the replay of all callbacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Callbacks that are stored as results.
    pub stored: usize,
    /// Callbacks among these that repeat a stored result.
    pub duplicates: usize,
    /// Callbacks that are still unusable.
    pub still_unusable: usize,
}

// === impl ReplayCounts ===

impl ReplayCounts {
    fn count(&mut self, outcome: &ReplayOutcome) {
        match outcome {
            ReplayOutcome::Stored(stored) => {
                self.stored += 1;
                self.duplicates += usize::from(*stored == Stored::Duplicate);
            }
            ReplayOutcome::StillUnusable(_) => self.still_unusable += 1,
            ReplayOutcome::NotFound => {}
        }
    }
}

// === impl Quarantine ===

impl Quarantine {
    /// Processes a quarantined callback with the current settings.
    ///
    /// # Errors
    ///
    /// Errors of the journal.
    pub async fn replay(&self, id: u64) -> Result<ReplayOutcome, JournalError> {
        let Self { state, store } = self;
        let found = store.list_quarantined(id.saturating_sub(1), 1).await?;
        let Some((_, quarantined)) = found.into_iter().find(|(found, _)| *found == id) else {
            return Ok(ReplayOutcome::NotFound);
        };
        let Some(callback) = payload::parse(&quarantined.body) else {
            return Ok(ReplayOutcome::StillUnusable(RejectionReason::Malformed.name()));
        };
        if !is_authenticated_now(state, &quarantined) {
            return Ok(ReplayOutcome::StillUnusable(RejectionReason::Unauthorized.name()));
        }
        let received = ReceivedCallback {
            callback,
            account: quarantined.account,
            service: quarantined.service,
            receive_time: quarantined.receive_time,
            // A quarantined callback was not forwarded, because it could be forged.
            forwarding: state.forwarding(),
        };
        match store.release_quarantined(id, received).await {
            Ok(stored) => Ok(ReplayOutcome::Stored(stored)),
            Err(JournalError::NoSuchCallback) => Ok(ReplayOutcome::NotFound),
            Err(error) => Err(error),
        }
    }

    /// Replays all quarantined callbacks.
    ///
    /// # Errors
    ///
    /// Errors of the journal.
    pub async fn replay_all(&self) -> Result<ReplayCounts, JournalError> {
        let (mut counts, mut after) = (ReplayCounts::default(), 0);
        loop {
            let page = self.store.list_quarantined(after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(counts);
            };
            after = *last;
            for (id, _) in page {
                counts.count(&self.replay(id).await?);
            }
        }
    }
}

/// Quarantines a callback, in a separate task as any append. Its body counts towards the byte budget
/// until it is stored. Returns its ID.
pub(super) async fn store(
    state: &AppState,
    path: &CallbackPath<'_>,
    reason: RejectionReason,
    (body, permit): (Bytes, BodyPermit),
    deadline: Instant,
) -> Result<u64, RejectionReason> {
    let quarantine_permit = state.quarantine_budget.try_acquire(&permit)?;
    let redacted = payload::redact(&body);
    drop(body);
    let credential_mac = match (redacted.username, redacted.password) {
        (None, None) => Vec::new(),
        (username, password) => {
            let (username, password) = (username.unwrap_or_default(), password.unwrap_or_default());
            credential_mac(&*state.journal, [&username, &password]).to_vec()
        }
    };
    let quarantined = QuarantinedCallback {
        receive_time: state.clock.now(),
        service: path.callback_service(),
        account: path.account_name(),
        reason: reason.name().to_owned(),
        credential_mac,
        body: redacted.body,
    };
    let limits = QuarantineLimits {
        bytes: state.quarantine_max_bytes,
        delete_reviewed_before: state.steady_clock.now().minus(REVIEWED_RETENTION),
    };
    let journal = Arc::clone(&state.journal);
    let append = state.tasks.spawn(async move {
        let _until_stored = (permit, quarantine_permit);
        journal.quarantine(quarantined, limits).await
    });
    match timeout_at(deadline, append).await {
        Ok(Ok(Ok(id))) => id.ok_or(RejectionReason::QuarantineFull),
        Ok(Ok(Err(error))) => Err(append_error(&error)),
        // The append may still succeed.
        Ok(Err(_)) | Err(_) => Err(RejectionReason::StoreTimeout),
    }
}

/// Returns true if the credentials of a quarantined callback are correct now. Only their MAC is stored.
fn is_authenticated_now(state: &AppState, quarantined: &QuarantinedCallback) -> bool {
    let service = quarantined.service.as_ref().map_or("", CallbackService::as_str);
    let has_credentials = !quarantined.credential_mac.is_empty();
    let is_stored = |accepted: &ReloadingCredentials| {
        let (username, password) = (accepted.username.current(), accepted.password.current());
        let mac = credential_mac(&*state.journal, [&*username, &*password]);
        quarantined.credential_mac == mac
    };
    let authenticator = &state.authenticator;
    (has_credentials && authenticator.accepted_credentials().any(is_stored))
        || authenticator.accepts_without_credentials(service, PathAuth::Verified, has_credentials)
}

/// Returns a MAC of credentials under a key that never leaves the journal.
///
/// Each part is preceded by its length, so different credentials have different input.
pub fn credential_mac<'a>(
    journal: &dyn Fingerprinter,
    parts: impl IntoIterator<Item = &'a SecretString>,
) -> [u8; 32] {
    let mut content = Vec::new();
    for part in parts {
        let text = part.expose_secret().as_bytes();
        content.extend_from_slice(&text.len().to_be_bytes());
        content.extend_from_slice(text);
    }
    journal.fingerprint(&content)
}
