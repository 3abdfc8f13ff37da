//! Device results: callbacks, attribution of requests, and results that match no device.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{AccountName, CallbackService, ChangeId, RequestId},
        result::Callback,
        trace::TraceParent,
    },
    journal::{error::Result, forward_queue::ForwardOptions},
};

/// Stores callbacks.
#[async_trait]
pub trait CallbackStore: Send + Sync {
    /// Stores a callback. A second callback with the same request and content is a
    /// [`Stored::Duplicate`].
    ///
    /// If a call begins after another one has returned `Ok`, its event has a higher position. Calls that
    /// overlap may be stored in any order, or only some of them. A call that failed, or that was dropped, may
    /// still be stored later.
    async fn store_callback(&self, callback: ReceivedCallback) -> Result<Stored>;

    /// Stores callbacks in this order: each new one gets a higher position than those before it. Returns the results of
    /// the callbacks before the first error, which belongs to the next one. If the journal is unavailable, the next one
    /// may be stored all the same, and any after it only if all between are. If the next one is rejected, those after it
    /// may be stored.
    ///
    /// An engine may store all of them in one commit.
    async fn store_callbacks(&self, callbacks: Vec<ReceivedCallback>) -> (Vec<Stored>, Result<()>) {
        let mut stored = Vec::with_capacity(callbacks.len());
        for callback in callbacks {
            match self.store_callback(callback).await {
                Ok(result) => stored.push(result),
                Err(error) => return (stored, Err(error)),
            }
        }
        (stored, Ok(()))
    }

    /// Estimates the wait of a callback that arrives now.
    fn expected_wait(&self) -> Duration;

    /// True if the last write succeeded and the journal is open.
    fn is_writable(&self) -> bool;
}

/// Links results to changes.
#[async_trait]
pub trait ResultStore: Send + Sync {
    /// Finds the one change that made an unattributed request (see
    /// [`attribution`](crate::domain::attribution)). Attributes the request to the change if
    /// `last_result` is the position of the request's last result, and still is when the attribution is
    /// stored. With `None`, only finds the change. `listed` is ThingSpace's list of the request's devices, if it has one.
    ///
    /// Callers wait for the quiet period between a call that returns `last_result` and the call
    /// that attributes with it, so that no result arrived in between, whatever the clock did.
    async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution>;

    /// Lists the unattributed requests whose first result was stored after this change was sent,
    /// newest first. If there are more than `limit`, lists the oldest.
    async fn unattributed_requests(&self, change: ChangeId, limit: usize)
    -> Result<Vec<RequestId>>;

    /// Lists unmatched results after the one with the number `after`, in order: those of open
    /// changes, and those of changes that were updated at `since` or later.
    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>>;

    /// Resolves an unmatched result to the device with the identifiers `listed`, which all belong to
    /// one device. The result counts for that device from then on, and the timeline of the change
    /// gets an event. Returns false, and changes nothing, unless exactly one device of the change has
    /// any of the identifiers and no other result contradicts it.
    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool>;
}

/// A callback to store.
#[derive(Debug, Clone)]
pub struct ReceivedCallback {
    /// The parsed callback.
    pub callback: Callback,
    /// The account in the callback's path, if any: the body has none.
    pub account: Option<AccountName>,
    /// The callback service in the callback's path.
    pub service: Option<CallbackService>,
    /// The time of arrival.
    pub receive_time: Timestamp,
    /// Queues the callback for forwarding. `None` to not forward it.
    pub forwarding: Option<ForwardOptions>,
}

/// The result of storing a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The callback is stored.
    New(NewResult),
    /// An equal callback was stored before, or the device of a lookup has a result that takes precedence.
    Duplicate,
}

/// A callback that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewResult {
    /// The position of its event.
    pub position: u64,
    /// The change that its request belongs to.
    pub change: Option<RequestChange>,
}

/// The change that made a request, and the trace of the call that sent it.
pub type RequestChange = (ChangeId, Option<TraceParent>);

/// The result of [`ResultStore::attribute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// The request is now attributed to this change.
    Attributed(Box<Change>),
    /// The request may be attributed to this change.
    Candidate {
        /// The change.
        change: Box<Change>,
        /// The position of the last result.
        last_result: u64,
        /// True if the request covers the change as a whole, and no other change can have made it.
        /// Otherwise it covers a part of an eSIM change: ThingSpace's list of the request's devices may
        /// prove that it covers the whole. If a list was given, it lacks devices.
        is_whole: bool,
    },
    /// Nothing is proven.
    Unproven,
}

/// Results of a change that match none of its devices and, as far as is known, belong to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedResult {
    /// The change.
    pub change_id: ChangeId,
    /// The position of the first result. It identifies the unmatched result.
    pub first_result: u64,
    /// The identifiers in the first result.
    pub ids: Vec<ReportedId>,
}
