//! The last callbacks of this replica, for operators.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{
    callbacks::routes::CallbackPath,
    domain::clock::Timestamp,
    telemetry::{CallbackOutcome, RejectionReason},
};

/// Number of callbacks that are kept.
const CAPACITY: usize = 50;
/// Maximum length of a kept name in bytes: that of the name of a service.
const MAX_NAME: usize = 64;

/// The last callbacks. Cheap to clone. A new callback takes the memory of the oldest one, so that recording allocates
/// nothing once the list is full.
#[derive(Clone, Default)]
pub struct RecentCallbacks(Arc<Mutex<VecDeque<RecentCallback>>>);

/// A callback without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentCallback {
    /// The time at which it was handled.
    pub time: Timestamp,
    /// The service in its path. Empty if it has none, or an invalid one.
    pub service: String,
    /// The account in its path. Empty if it has none, or an invalid one.
    pub account: String,
    /// The outcome.
    pub outcome: CallbackOutcome,
    /// The reason, if it was quarantined or rejected.
    pub reason: Option<RejectionReason>,
    /// The ID within the quarantine.
    pub quarantine_id: Option<u64>,
}

impl RecentCallbacks {
    /// Adds a callback.
    pub(super) fn push(
        &self,
        path: &CallbackPath<'_>,
        time: Timestamp,
        outcome: CallbackOutcome,
        reason: Option<RejectionReason>,
        quarantine_id: Option<u64>,
    ) {
        let mut callbacks = self.0.lock();
        let oldest = if callbacks.len() < CAPACITY { None } else { callbacks.pop_back() };
        let (mut service, mut account) =
            oldest.map(|oldest| (oldest.service, oldest.account)).unwrap_or_default();
        replace(&mut service, Some(&path.service));
        replace(&mut account, path.account.as_deref());
        callbacks.push_front(RecentCallback {
            time,
            service,
            account,
            outcome,
            reason,
            quarantine_id,
        });
    }

    /// Returns the callbacks, newest first.
    pub fn list(&self) -> Vec<RecentCallback> {
        self.0.lock().iter().cloned().collect()
    }
}

/// Replaces a text by a name of an account or a service. An invalid name counts as none.
fn replace(text: &mut String, name: Option<&str>) {
    text.clear();
    let is_valid = |name: &&str| {
        name.len() <= MAX_NAME
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.push_str(name.filter(is_valid).unwrap_or_default());
}

#[cfg(test)]
mod tests;
