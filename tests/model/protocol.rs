//! What the model knows: its settings, its state, and what can happen to it.

use thingspace_gateway::domain::{
    attribution::DeviceListStatus,
    state::{ChangeState, Transition},
};

use crate::rules::{self, Devices, Rules};

/// Keys of clients: the first one's change, and another change of the same devices.
pub const KEYS: usize = 2;
/// Requests at ThingSpace: one for each key, and a stranger's.
pub const FOREIGN: usize = KEYS;
pub const REQUESTS: usize = KEYS + 1;
pub const REPLICAS: usize = 2;

/// What is explored.
#[derive(Clone)]
pub struct Protocol {
    pub rules: Rules,
    pub replicas: usize,
    /// How often a client calls with each key.
    pub calls: [u8; KEYS],
    /// The devices of each key's change, and of the stranger's request.
    pub devices: [Devices; REQUESTS],
    pub lookups: Lookups,
    pub callback_timing: CallbackTiming,
    /// The stranger's first callback comes before any change is sent.
    pub is_foreign_request_early: bool,
    /// The clock may be set back once.
    pub clock_leaps: bool,
    pub flaw: Option<Flaw>,
}

/// Whether ThingSpace lists a request's devices when it is asked before a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookups {
    /// eSIM: sooner or later, or never.
    MayFail,
    /// As that. A list may be empty or lack devices, but what it has is not exactly another change's set.
    Incomplete,
    /// A list may lack any devices.
    AnyIncomplete,
    /// 5G Business Internet: there is no such list.
    Unsupported,
}

/// What may be relied on of callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackTiming {
    /// What is not lost comes within `changes.attribution_quiet_period` of the one before, and within
    /// `changes.close_after` of the POST. The stranger's are not lost.
    InTime,
    /// They come when they like.
    AnyTime,
}

/// What a broken protocol does.
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
    /// And forgets what was given up, which hides it, as it does once the change is no longer stored.
    AcceptsResultsFromBeforeDispatch,
    /// Attributes what it finds at a start at once.
    EndsQuietPeriodAtRestart,
    /// Adds ThingSpace's list to what the callbacks named.
    MergesListWithCallbacks,
    /// A closed change that has more devices than were seen is no rival.
    IgnoresLargerClosedRival,
    /// Decides by clock times whether a result came before a change was sent.
    ComparesClockTimes,
    AcknowledgesBeforeStoring,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelState {
    /// The journal: shared, atomic, durable.
    pub rows: [Option<ChangeRow>; KEYS],
    pub requests: [Option<RequestState>; REQUESTS],
    /// How often ThingSpace has executed each key: up to 2.
    pub executed: [u8; KEYS],
    /// Posts that ThingSpace has not come to yet. Sorted.
    pub posts: Vec<Post>,
    /// What the replicas are doing. Sorted.
    pub jobs: Vec<SendJob>,
    pub is_up: [bool; REPLICAS],
    pub calls: [u8; KEYS],
    /// The requests that had been heard of when the clock was set back, if it was.
    pub seen_before_clock_change: Option<u8>,
    /// A call with a key came to a replica that had not made the change.
    pub was_retried_elsewhere: bool,
}

/// A change in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeRow {
    pub state: ChangeState,
    /// Counts the claims. Steps of an earlier claim's sender are refused.
    pub fence: u8,
    pub owner: u8,
    pub was_dispatched: bool,
    /// Requests that were heard of before it was sent, by position.
    pub seen_before_dispatch: u8,
    /// The same by the clock.
    pub seen_before_dispatch_by_clock: u8,
    pub request: Option<u8>,
    pub is_attributed: bool,
}

/// A request at ThingSpace, and what the journal has of its callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestState {
    pub devices: Devices,
    /// Results that are in the journal.
    pub stored: Devices,
    /// Callbacks that were answered with 200.
    pub acknowledged: Devices,
    /// The callbacks that have not come are lost.
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
    /// QUEUED is in the journal.
    Claimed,
    /// DISPATCHED could not be written, or so it seemed.
    Undispatched,
    /// DISPATCHED is in the journal, and nothing has left.
    Dispatched,
    /// The POST has left.
    Waiting,
    /// The answer is not in the journal yet.
    Answered(PostResponse),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PostResponse {
    Accepted,
    Refused,
    NotExecuted,
    None,
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
        answered: bool,
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
    /// What nobody sends any more, or so it seems from here: the owner's lease ran out.
    ResolveInterrupted {
        key: usize,
        replica: usize,
    },
}

// === impl State ===

impl ModelState {
    /// Requests that results have named, one bit each.
    pub fn requests_with_results(&self) -> u8 {
        let heard = (0..REQUESTS).filter(|of| self.requests[*of].is_some_and(|of| of.stored != 0));
        heard.fold(0, |heard, of| heard | 1 << of)
    }

    pub fn has_change(&self, request: usize) -> bool {
        let rows = self.rows.iter().flatten();
        rows.filter_map(|row| row.request)
            .any(|bound| usize::from(bound) == request)
    }

    pub fn apply_transition(&mut self, key: usize, step: &Transition) -> Option<()> {
        let row = self.rows[key].as_mut()?;
        row.state = rules::after(row.state, step)?;
        Some(())
    }

    pub fn turn(&mut self, job: SendJob, phase: Phase) {
        self.jobs.retain(|other| *other != job);
        self.jobs.push(SendJob { phase, ..job });
    }

    pub fn remove_post(&mut self, post: Post) {
        let index = self.posts.iter().position(|other| *other == post);
        if let Some(index) = index {
            self.posts.remove(index);
        }
    }

    /// An answer reaches whoever waits for it.
    pub fn deliver_response(&mut self, post: Post, answer: PostResponse) {
        for job in &mut self.jobs {
            if job.post == post && job.phase == Phase::Waiting {
                job.phase = Phase::Answered(answer);
            }
        }
    }
}

// === impl Requested ===

impl RequestState {
    pub fn new(devices: Devices) -> Self {
        Self {
            devices,
            stored: 0,
            acknowledged: 0,
            has_lost_callbacks: false,
        }
    }

    /// Whether no callback will come any more.
    pub fn is_complete(self) -> bool {
        self.has_lost_callbacks || self.stored == self.devices
    }
}
