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
    MarksDispatchedNotSentAtStart,
    IgnoresFence,
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
}

/// A change in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeRow {
    pub state: ChangeState,
    /// Number of claims. Transitions of earlier claims are rejected.
    pub fence: u8,
    pub owner: u8,
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
    pub fence: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SendJob {
    pub post: Post,
    pub phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// QUEUED is stored.
    Claimed,
    /// The write of DISPATCHED failed, or seemed to fail.
    Undispatched,
    /// DISPATCHED is stored, and the POST is not sent yet.
    Dispatched,
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
    Crash {
        replica: usize,
    },
    Restart {
        replica: usize,
    },
    /// Resolves a change in flight without a job, or after its owner's lease has expired.
    ResolveInterrupted {
        key: usize,
        replica: usize,
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
        row.state = rules::after(row.state, transition)?;
        Some(())
    }

    pub fn advance(&mut self, job: SendJob, phase: Phase) {
        self.jobs.retain(|other| *other != job);
        self.jobs.push(SendJob { phase, ..job });
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
