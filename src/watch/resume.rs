//! Decides which token a stream starts from, and rejects tokens that the journal cannot continue.

use crate::{
    domain::change::Change,
    journal::{ChangeSelector, Cursor, EventQuery, Journal, JournalError, WatchTarget},
    watch::token::{ResumePoint, ResumeToken},
};

/// A watch that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WatchOpenError {
    /// The change does not exist.
    #[error("no such change")]
    NoSuchChange,
    /// The token belongs to another target than the request selects.
    #[error("the resume token belongs to another change, request or account")]
    TargetMismatch,
    /// The request has neither a target nor a token.
    #[error("no change, request or resume token given")]
    NoTarget,
    /// The token is not in this journal, or its events have been removed.
    #[error("cannot resume from this token: {reason}")]
    Expired {
        /// The check that failed.
        reason: &'static str,
        /// The oldest token of the target that can be resumed. `None` if the change does not exist.
        oldest: Option<ResumeToken>,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Returns the token of a stream that starts at `token`, or at the first event of `target`.
pub(super) async fn resolve_start(
    journal: &dyn Journal,
    target: Option<WatchTarget>,
    token: Option<ResumeToken>,
) -> Result<ResumeToken, WatchOpenError> {
    let token = match (target, token) {
        (Some(target), Some(token)) if target != token.target => {
            return Err(WatchOpenError::TargetMismatch);
        }
        (_, Some(token)) => token,
        (Some(target), None) => return Ok(first_token(journal, target).await?),
        (None, None) => return Err(WatchOpenError::NoTarget),
    };
    validate(journal, &token).await?;
    match token.resume_point {
        ResumePoint::AfterEvent => Ok(token),
        // Keeps `removals`: the stream ends if events are removed before it has read them.
        ResumePoint::AtFirstEvent if matches!(token.target, WatchTarget::Account(_)) => Ok(token),
        // The events that the token refers to are still stored: start from the first one.
        ResumePoint::AtFirstEvent | ResumePoint::NoEventsUpTo(_) => {
            Ok(first_token(journal, token.target).await?)
        }
    }
}

pub(super) async fn find_change(
    journal: &dyn Journal,
    target: &WatchTarget,
) -> Result<Option<Change>, JournalError> {
    let selector = match target {
        WatchTarget::Change(id) => ChangeSelector::Id(*id),
        WatchTarget::Request(id) => ChangeSelector::Request(id.clone()),
        WatchTarget::Account(_) => return Ok(None),
    };
    journal.change(selector).await
}

/// Returns the token before a target's first event. It names that event, or the journal's end if there is
/// none, so that a resumed stream detects that events were removed in the meantime.
async fn first_token(
    journal: &dyn Journal,
    target: WatchTarget,
) -> Result<ResumeToken, JournalError> {
    // Read before the events: an event stored in between is in the page or after this position.
    let last = journal.kept_range().await?.last;
    let page = journal.events(target.clone(), EventQuery::new(Cursor::START, 1)).await?;
    let removals = page.removed.count();
    let (cursor, event_hash, resume_point) = match (&target, page.events.first()) {
        (WatchTarget::Account(_), _) => (Cursor::START, 0, ResumePoint::AtFirstEvent),
        (_, Some(event)) => (event.cursor, event.event_hash, ResumePoint::AtFirstEvent),
        (_, None) => (Cursor::START, 0, ResumePoint::NoEventsUpTo(last)),
    };
    let epoch = journal.epoch();
    Ok(ResumeToken { epoch, cursor, event_hash, resume_point, target, removals })
}

/// Rejects a token that does not match an event of this journal.
async fn validate(journal: &dyn Journal, token: &ResumeToken) -> Result<(), WatchOpenError> {
    let mismatch = if token.epoch != journal.epoch() {
        Some("it belongs to another journal, or to this one before it lost data")
    } else if matches!(token.target, WatchTarget::Account(_)) {
        check_account_token(journal, token).await?
    } else {
        check_token(journal, token).await?
    };
    let Some(reason) = mismatch else {
        return Ok(());
    };
    let oldest = match &token.target {
        target @ WatchTarget::Change(_) if find_change(journal, target).await?.is_none() => None,
        target => Some(first_token(journal, target.clone()).await?),
    };
    Err(WatchOpenError::Expired { reason, oldest })
}

const AFTER_THE_END: &str = "its position is after the end of the journal";
const OTHER_EVENT: &str = "the event at its position is a different one";
const REMOVED: &str = "the events after it have been removed";

/// Checks the token of a change or a request, whose events are removed together.
async fn check_token(
    journal: &dyn Journal,
    token: &ResumeToken,
) -> Result<Option<&'static str>, JournalError> {
    let kept = journal.kept_range().await?;
    if let ResumePoint::NoEventsUpTo(position) = token.resume_point {
        // The journal does not store whether the removed events belonged to this target.
        return Ok(match position {
            _ if position > kept.last => Some(AFTER_THE_END),
            _ if kept.trimmed > position => Some(REMOVED),
            _ => None,
        });
    }
    Ok(match journal.event_at(token.target.clone(), token.cursor).await? {
        Some(event) if event.event_hash == token.event_hash => None,
        Some(_) => Some(OTHER_EVENT),
        None if token.cursor.position > journal.kept_range().await?.last => Some(AFTER_THE_END),
        None => Some(REMOVED),
    })
}

/// Checks the token of an account, whose changes are removed one after the other. Events up to the token may
/// have been removed, but none after it since the token was issued.
async fn check_account_token(
    journal: &dyn Journal,
    token: &ResumeToken,
) -> Result<Option<&'static str>, JournalError> {
    let ResumeToken { target, cursor, .. } = token;
    let event = journal.event_at(target.clone(), *cursor).await?;
    // Read after the event: if the event has just been removed, this includes its removal.
    let query = EventQuery::new(*cursor, 1);
    let removed = journal.events(target.clone(), query).await?.removed;
    if removed.has_removed_after(*cursor, token.removals) {
        return Ok(Some(REMOVED));
    }
    if *cursor == Cursor::START {
        return Ok(None);
    }
    Ok(match event {
        Some(event) if event.event_hash == token.event_hash => None,
        Some(_) => Some(OTHER_EVENT),
        None if cursor.position > journal.kept_range().await?.last => Some(AFTER_THE_END),
        None if cursor.position <= removed.newest() => None,
        None => Some(OTHER_EVENT),
    })
}
