//! Parameters, state and actions of the model.

use thingspace_gateway::domain::state::{ChangeState, Transition};

use crate::rules::{self, Devices, Rules};

/// Number of keys: one for each of two changes.
pub const KEYS: usize = 2;
/// Index of the foreign request. The other requests have the index of their key.
pub const FOREIGN: usize = KEYS;
pub const REQUESTS: usize = KEYS + 1;
pub const REPLICAS: usize = 2;

/// Parameters of a scenario.
#[derive(Clone)]
pub struct Protocol {
    pub rules: Rules,
    pub replicas: usize,
    /// Number of calls with each key.
    pub calls: [u8; KEYS],
    /// Devices of each change, and of the foreign request.
    pub devices: [Devices; REQUESTS],
    pub lookups: Lookups,
    pub callback_timing: CallbackTiming,
    /// True if a replica stores the response to a POST within `changes.close_after` of the last check before the POST.
    pub is_sending_in_time: bool,
    /// True if the first foreign callback arrives before any change is sent.
    pub is_foreign_request_early: bool,
    /// True if the clock can be set back once.
    pub clock_can_be_set_back: bool,
    pub flaw: Option<Flaw>,
}

/// Responses to the lookup of a request's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookups {
    /// eSIM: a complete list at any time, or never.
    MayFail,
    /// Like `MayFail`, but the list can lack devices. It never equals the devices of another change.
    Incomplete,
    /// The list can lack any devices.
    AnyIncomplete,
    /// 5G Business Internet: no list exists.
    Unsupported,
}

/// Assumptions about callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackTiming {
    /// A callback that is not lost arrives within `changes.attribution_quiet_period` of the previous one,
    /// and within `changes.close_after` of the POST. Foreign callbacks are not lost.
    InTime,
    /// Callbacks arrive at any time.
    AnyTime,
}

/// Deviations from the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    RetriesAfterTimeout,
    SkipsKeyCheck,
    SendsBeforeIntent,
    SettlesDispatchedAsNotSent,
    /// Accepts steps of an earlier attempt.
    SkipsFencing,
    /// Sends a change whose lease may have expired. A check of a later lease than that of the claim does the same.
    SkipsLeaseCheck,
    /// Settles changes of a replica that holds its lease.
    SettlesBeforeExpiry,
    /// Records nothing if a change must not be sent.
    ForgetsUnsentChange,
    AcceptsPartialCoverage,
    SkipsQuietPeriod,
    SkipsDeviceList,
    ForgetsClosedChanges,
    /// Also ignores closed changes, which would hide the deviation.
    AcceptsResultsFromBeforeDispatch,
    /// Attributes requests at a start without a quiet period.
    EndsQuietPeriodAtRestart,
    /// Merges ThingSpace's list with the devices of callbacks.
    MergesListWithCallbacks,
    /// Ignores a closed change with more devices than were seen.
    IgnoresLargerClosedRival,
    /// Compares clock times to decide if a result precedes the dispatch.
    ComparesClockTimes,
    AcknowledgesBeforeStoring,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelState {
    /// The changes in the journal.
    pub rows: [Option<ChangeRow>; KEYS],
    pub requests: [Option<RequestState>; REQUESTS],
    /// Number of executions of each key, up to 2.
    pub executed: [u8; KEYS],
    /// POSTs that ThingSpace has not handled yet, sorted.
    pub posts: Vec<Post>,
    /// Jobs of the replicas, sorted.
    pub jobs: Vec<SendJob>,
    pub is_up: [bool; REPLICAS],
    pub calls: [u8; KEYS],
    /// Requests with results at the moment when the clock was set back.
    pub seen_before_clock_change: Option<u8>,
    /// True if a repeated call arrived at the other replica.
    pub was_retried_elsewhere: bool,
    /// True if a response of ThingSpace arrived, and the change says something else.
    pub has_lost_response: bool,
}

/// A change in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeRow {
    pub state: ChangeState,
    /// The last attempt to send the change: the number of claims. The journal rejects steps of earlier ones.
    pub attempt: u8,
    pub owner: u8,
    /// True if the change is in flight, and the lease of its claim has expired. A crash ends the lease, too: the
    /// other replica notices it later.
    pub has_lost_lease: bool,
    pub was_dispatched: bool,
    /// Requests with results before the dispatch, by position.
    pub seen_before_dispatch: u8,
    /// Requests with results before the dispatch, by the clock.
    pub seen_before_dispatch_by_clock: u8,
    pub request: Option<u8>,
    pub is_attributed: bool,
}

/// A request at ThingSpace, and what the journal has of its callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestState {
    pub devices: Devices,
    /// Devices with a stored result.
    pub stored: Devices,
    /// Devices with an acknowledged callback.
    pub acknowledged: Devices,
    /// True if the remaining callbacks are lost.
    pub has_lost_callbacks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Post {
    pub key: usize,
    pub replica: usize,
    pub attempt: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SendJob {
    pub post: Post,
    pub phase: Phase,
    /// True if the lease of the claim has expired before the last check.
    pub has_lost_lease: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// QUEUED is stored.
    Claimed,
    /// The change must not be sent. NOT_SENT is not stored yet.
    Unsent,
    /// DISPATCHED is stored. The replica has not checked its lease yet.
    Dispatched,
    /// The last check is over. The POST is not sent yet.
    Checked,
    /// The POST is sent.
    Waiting,
    /// The response is not stored yet.
    Responded(PostResponse),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PostResponse {
    Accepted,
    Refused,
    NotExecuted,
    None,
}

/// The state of ThingSpace's list of a request's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceListStatus {
    Received,
    /// ThingSpace has no such list for the operation.
    Unsupported,
    /// The lookup failed, or the list was empty: nothing may be attributed.
    Unanswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Call {
        key: usize,
        replica: usize,
    },
    Dispatch(SendJob),
    DispatchWriteFails {
        job: SendJob,
        written: bool,
    },
    /// The last check: is the lease of the claim valid on the replica's own clock?
    Check {
        job: SendJob,
        is_valid: bool,
    },
    Send(SendJob),
    TimeOut(SendJob),
    Record(SendJob),
    Execute {
        post: Post,
        responded: bool,
    },
    Refuse(Post),
    DoNotExecute(Post),
    LosePost(Post),
    ExecuteForeignRequest,
    Deliver {
        request: usize,
        device: Devices,
    },
    Acknowledge {
        request: usize,
        device: Devices,
    },
    LoseRemainingCallbacks {
        request: usize,
    },
    Attribute {
        request: usize,
        list: DeviceListStatus,
        listed: Devices,
    },
    SetClockBack,
    Lookup {
        key: usize,
        device: Devices,
    },
    MarkOverdue {
        key: usize,
    },
    Close {
        key: usize,
    },
    /// The lease of a replica expires on the database's clock: the replica is stopped, or cannot reach the database.
    /// It continues under another lease.
    ExpireLease {
        replica: usize,
    },
    Crash {
        replica: usize,
    },
    Restart {
        replica: usize,
    },
    /// Settles a change in flight whose lease has expired, at any replica.
    Settle {
        key: usize,
    },
}

// === impl ModelState ===

impl ModelState {
    /// Requests with stored results, one bit each.
    pub fn requests_with_results(&self) -> u8 {
        let has_results =
            |index: &usize| self.requests[*index].is_some_and(|request| request.stored != 0);
        let indices = (0..REQUESTS).filter(has_results);
        indices.fold(0, |bits, index| bits | 1 << index)
    }

    pub fn has_change(&self, request: usize) -> bool {
        let rows = self.rows.iter().flatten();
        rows.filter_map(|row| row.request).any(|attributed| usize::from(attributed) == request)
    }

    pub fn apply_transition(&mut self, key: usize, transition: &Transition) -> Option<()> {
        let row = self.rows[key].as_mut()?;
        row.enter(rules::after(row.state, transition)?);
        Some(())
    }

    pub fn advance(&mut self, job: SendJob, phase: Phase) {
        self.end(job);
        let has_lost_lease = job.has_lost_lease && phase == Phase::Dispatched;
        self.jobs.push(SendJob { phase, has_lost_lease, ..job });
    }

    pub fn end(&mut self, job: SendJob) {
        self.jobs.retain(|other| *other != job);
    }

    /// Ends the lease of a replica.
    pub fn expire_lease(&mut self, replica: usize) {
        for row in self.rows.iter_mut().flatten() {
            row.has_lost_lease |= row.state.is_in_flight() && usize::from(row.owner) == replica;
        }
        for job in self.jobs.iter_mut().filter(|job| job.post.replica == replica) {
            job.has_lost_lease |= matches!(job.phase, Phase::Claimed | Phase::Dispatched);
        }
    }

    pub fn remove_post(&mut self, post: Post) {
        let index = self.posts.iter().position(|other| *other == post);
        if let Some(index) = index {
            self.posts.remove(index);
        }
    }

    /// Delivers a response to the waiting job.
    pub fn deliver_response(&mut self, post: Post, response: PostResponse) {
        for job in &mut self.jobs {
            if job.post == post && job.phase == Phase::Waiting {
                job.phase = Phase::Responded(response);
            }
        }
    }
}

// === impl ChangeRow ===

impl ChangeRow {
    pub fn enter(&mut self, state: ChangeState) {
        self.state = state;
        self.has_lost_lease &= state.is_in_flight();
    }
}

// === impl RequestState ===

impl RequestState {
    pub fn new(devices: Devices) -> Self {
        Self { devices, stored: 0, acknowledged: 0, has_lost_callbacks: false }
    }

    /// True if no further callback arrives.
    pub fn is_complete(self) -> bool {
        self.has_lost_callbacks || self.stored == self.devices
    }
}
