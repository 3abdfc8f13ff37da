//! What cannot be used: kept where it came behind the right path secret, since ThingSpace hardly
//! sends anything again; and judged anew once an operator says so.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{
    auth::PathAuth,
    body::BodyPermit,
    response::{CallbackRefusal, RefusalResponse},
    routes::{AppState, CallbackPath},
};
use crate::{
    callbacks::payload,
    domain::newtypes::{AccountName, CallbackService},
    journal::{
        Journal, JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Stored,
    },
};

/// How long what an operator has looked at is kept, when room is needed.
const REVIEWED_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Callbacks that are judged anew at a time.
const PAGE: usize = 50;

/// What became of a kept callback that was judged anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It is stored as a result.
    Stored(Stored),
    /// It still cannot be used, for this reason.
    StillUnusable(&'static str),
    /// There is none of that number.
    NotFound,
}

impl AppState {
    /// Keeps a callback that cannot be used, if there is room. On a task of its own, as any other
    /// that is stored: what waits for the journal has its part of the room for bodies.
    pub(super) async fn quarantine(
        &self,
        target: &CallbackPath,
        refusal: CallbackRefusal,
        (body, permit): (Vec<u8>, BodyPermit),
        deadline: Instant,
    ) -> Result<(), RefusalResponse> {
        let unusable = payload::redact(&body);
        drop(body);
        let now = self.clock.now();
        let detained = QuarantinedCallback {
            receive_time: now,
            service: CallbackService::parse(target.service.as_str()).ok(),
            account: self.account(target),
            reason: refusal.name().to_owned(),
            credential_mac: credential_mac(
                &*self.journal,
                unusable.username.as_ref(),
                unusable.password.as_ref(),
            ),
            body: unusable.body,
        };
        let bounds = QuarantineLimits {
            bytes: self.quarantine_bytes,
            delete_reviewed_before: self.steady_clock.now().minus(REVIEWED_RETENTION),
        };
        let journal = Arc::clone(&self.journal);
        let keep = self.tasks.spawn(async move {
            let _until_kept = permit;
            journal.quarantine(detained, bounds).await
        });
        match timeout_at(deadline, keep).await {
            Ok(Ok(Ok(Some(_)))) => Ok(()),
            Ok(Ok(Ok(None))) => Err(CallbackRefusal::QuarantineFull.into()),
            Ok(Ok(Err(JournalError::Overloaded))) => {
                Err(RefusalResponse::busy(self.journal.expected_wait()))
            }
            Ok(Ok(Err(_))) => Err(CallbackRefusal::Unavailable.into()),
            // Whether it was kept is not known.
            Ok(Err(_)) | Err(_) => Err(CallbackRefusal::Late.into()),
        }
    }

    pub(super) fn account(&self, target: &CallbackPath) -> Option<AccountName> {
        let account = target.account.as_deref();
        // One that is no account's name is kept like one without.
        account.and_then(|name| AccountName::parse(name).ok())
    }

    /// Judges a kept callback by the settings as they are now.
    pub(super) async fn replay(&self, id: u64) -> Result<ReplayOutcome, JournalError> {
        let found = self
            .journal
            .list_quarantined(id.saturating_sub(1), 1)
            .await?;
        let Some((_, detained)) = found.into_iter().find(|(found, _)| *found == id) else {
            return Ok(ReplayOutcome::NotFound);
        };
        let Ok(callback) = payload::parse(&detained.body) else {
            return Ok(ReplayOutcome::StillUnusable(
                CallbackRefusal::Malformed.name(),
            ));
        };
        if !self.is_authenticated_now(&detained) {
            return Ok(ReplayOutcome::StillUnusable(
                CallbackRefusal::Unauthorized.name(),
            ));
        }
        let arrival = ReceivedCallback {
            callback,
            account: detained.account,
            service: detained.service,
            // When it came, not when it was understood.
            receive_time: detained.receive_time,
            // What was not understood may be forged, and was not passed on before.
            forwarding: self.forwarding(),
        };
        match self.journal.release_quarantined(id, arrival).await {
            Ok(stored) => Ok(ReplayOutcome::Stored(stored)),
            Err(JournalError::NoSuchCallback) => Ok(ReplayOutcome::NotFound),
            Err(error) => Err(error),
        }
    }

    /// Judges all kept callbacks anew; answers how many are stored now, and how many still are not.
    pub(super) async fn replay_all(&self) -> Result<(usize, usize), JournalError> {
        let (mut stored, mut left, mut after) = (0, 0, 0);
        loop {
            let page = self.journal.list_quarantined(after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok((stored, left));
            };
            after = *last;
            for (id, _) in page {
                match self.replay(id).await? {
                    ReplayOutcome::Stored(_) => stored += 1,
                    ReplayOutcome::StillUnusable(_) => left += 1,
                    ReplayOutcome::NotFound => {}
                }
            }
        }
    }

    /// Whether the credentials that it had, which only their HMAC tells, would do now.
    fn is_authenticated_now(&self, detained: &QuarantinedCallback) -> bool {
        let service = detained
            .service
            .as_ref()
            .map_or("", CallbackService::as_str);
        let presented = !detained.credential_mac.is_empty();
        let right = presented
            && self
                .authenticator
                .accepted_credentials()
                .fold(false, |right, pair| {
                    let (username, password) = (pair.username.current(), pair.password.current());
                    let expected = credential_mac(&*self.journal, Some(&username), Some(&password));
                    right | (expected == detained.credential_mac)
                });
        right
            || self.authenticator.accepts_without_credentials(
                service,
                PathAuth::Verified,
                presented,
            )
    }
}

/// Names credentials without telling them: an HMAC under a key that stays in the journal. Empty
/// where there are none.
fn credential_mac(
    journal: &dyn Journal,
    username: Option<&SecretString>,
    password: Option<&SecretString>,
) -> Vec<u8> {
    if username.is_none() && password.is_none() {
        return Vec::new();
    }
    let part = |secret: Option<&SecretString>| {
        let text = secret.map_or("", |secret| secret.expose_secret());
        [&text.len().to_be_bytes()[..], text.as_bytes()].concat()
    };
    let content = [part(username), part(password)].concat();
    journal.fingerprint(&content).to_vec()
}
