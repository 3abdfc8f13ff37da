//! What cannot be used: kept where it came behind the right path secret, since ThingSpace hardly
//! sends anything again; and judged anew once an operator says so.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{Refusal, Refused},
    body::Held,
    gate::PathProof,
    routes::{Room, Target},
};
use crate::{
    domain::{
        callback::{Callback, RedactedBody},
        newtypes::{AccountName, CallbackService},
    },
    journal::{
        Journal, JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Stored,
    },
};

/// How long what an operator has looked at is kept, when room is needed.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Callbacks that are judged anew at a time.
const PAGE: usize = 50;

/// What became of a kept callback that was judged anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It is stored as a result.
    Stored(Stored),
    /// It still cannot be used, for this reason.
    StillUnusable(&'static str),
    /// There is none of that number.
    NotThere,
}

impl Room {
    /// Keeps a callback that cannot be used, if there is room. On a task of its own, as any other
    /// that is stored: what waits for the journal has its part of the room for bodies.
    pub(super) async fn detain(
        &self,
        target: &Target,
        refusal: Refusal,
        (body, held): (Vec<u8>, Held),
        deadline: Instant,
    ) -> Result<(), Refused> {
        let unusable = RedactedBody::from_body(&body);
        drop(body);
        let now = self.clock.now();
        let detained = QuarantinedCallback {
            receive_time: now,
            service: CallbackService::parse(target.service.as_str()).ok(),
            account: self.account(target),
            reason: refusal.name().to_owned(),
            credential_mac: print(
                &*self.journal,
                unusable.username.as_ref(),
                unusable.password.as_ref(),
            ),
            body: unusable.body,
        };
        let bounds = QuarantineLimits {
            bytes: self.quarantine_bytes,
            delete_reviewed_before: self.steady_clock.now().minus(KEEP),
        };
        let journal = Arc::clone(&self.journal);
        let keep = self.tasks.spawn(async move {
            let _until_kept = held;
            journal.quarantine(detained, bounds).await
        });
        match timeout_at(deadline, keep).await {
            Ok(Ok(Ok(Some(_)))) => Ok(()),
            Ok(Ok(Ok(None))) => Err(Refusal::QuarantineFull.into()),
            Ok(Ok(Err(JournalError::Overloaded))) => {
                Err(Refused::busy(self.journal.expected_wait()))
            }
            Ok(Ok(Err(_))) => Err(Refusal::Unavailable.into()),
            // Whether it was kept is not known.
            Ok(Err(_)) | Err(_) => Err(Refusal::Late.into()),
        }
    }

    pub(super) fn account(&self, target: &Target) -> Option<AccountName> {
        let account = target.account.as_deref();
        // One that is no account's name is kept like one without.
        account.and_then(|name| AccountName::parse(name).ok())
    }

    /// Judges a kept callback by the settings as they are now.
    pub(super) async fn replay(&self, id: u64) -> Result<Replayed, JournalError> {
        let found = self
            .journal
            .list_quarantined(id.saturating_sub(1), 1)
            .await?;
        let Some((_, detained)) = found.into_iter().find(|(found, _)| *found == id) else {
            return Ok(Replayed::NotThere);
        };
        let Ok(callback) = Callback::parse(&detained.body) else {
            return Ok(Replayed::StillUnusable(Refusal::Malformed.name()));
        };
        if !self.is_right_now(&detained) {
            return Ok(Replayed::StillUnusable(Refusal::Unauthorized.name()));
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
            Ok(stored) => Ok(Replayed::Stored(stored)),
            Err(JournalError::NoSuchChange) => Ok(Replayed::NotThere),
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
                    Replayed::Stored(_) => stored += 1,
                    Replayed::StillUnusable(_) => left += 1,
                    Replayed::NotThere => {}
                }
            }
        }
    }

    /// Whether the credentials that it had, which only their HMAC tells, would do now.
    fn is_right_now(&self, detained: &QuarantinedCallback) -> bool {
        let service = detained
            .service
            .as_ref()
            .map_or("", CallbackService::as_str);
        let presented = !detained.credential_mac.is_empty();
        let right = presented
            && self.gate.pairs().fold(false, |right, pair| {
                let (username, password) = (pair.username.read(), pair.password.read());
                let expected = print(&*self.journal, Some(&username), Some(&password));
                right | (expected == detained.credential_mac)
            });
        right || self.gate.takes(service, PathProof::Shown, presented)
    }
}

/// Names credentials without telling them: an HMAC under a key that stays in the journal. Empty
/// where there are none.
fn print(
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
