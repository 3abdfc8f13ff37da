//! State that all requests share.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio_util::task::TaskTracker;

use crate::{
    background::FORWARDED_BY,
    callbacks::{
        auth::Authenticator,
        body::{BodyBudget, QuarantineBudget},
        callback_log::CallbackLog,
    },
    domain::clock::Clock,
    journal::{CallbackJournal, ForwardOptions},
    spool::Spool,
};

/// Maximum time from a request's header to its response. ThingSpace was observed to send a callback
/// again after about 4 s. The documentation promises 3.5 s: the rest is for a busy machine.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(3_250);

/// State that all requests share.
pub(super) struct AppState {
    pub(super) authenticator: Authenticator,
    pub(super) journal: Arc<dyn CallbackJournal>,
    /// `None` if callbacks are rejected while the journal is unavailable.
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) steady_clock: Arc<dyn Clock>,
    pub(super) log: CallbackLog,
    /// Connections and appends, which a drain waits for.
    pub(super) tasks: TaskTracker,
    pub(super) body_budget: BodyBudget,
    pub(super) quarantine_budget: QuarantineBudget,
    /// Maximum size of the quarantine, in bytes.
    pub(super) quarantine_max_bytes: u64,
    /// Maximum number of callbacks that wait for their forwarding. `None` if callbacks are not forwarded.
    pub(super) forward_max_waiting: Option<u64>,
    /// Id of this gateway in the loop header.
    pub(super) forwarder_id: String,
}

impl AppState {
    /// Returns how a callback that is stored now is queued for forwarding.
    pub(super) fn forwarding(&self) -> Option<ForwardOptions> {
        let now = self.clock.now();
        self.forward_max_waiting.map(|max_waiting| ForwardOptions { max_waiting, now })
    }

    /// Returns the loop header if this gateway has forwarded the request.
    pub(super) fn own_forward<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let mut ids = headers.get_all(FORWARDED_BY).iter();
        ids.find(|id| id.as_bytes() == self.forwarder_id.as_bytes())
    }
}
