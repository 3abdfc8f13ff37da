//! What the model knows: its settings, its state, and what can happen to it.

use thingspace_gateway::domain::{
    attribution::DeviceList,
    change::{ChangeState, Step},
};

use crate::rule::{self, Devices, Rules};

/// Keys of clients: the first one's change, and another change of the same devices.
pub const KEYS: usize = 2;
/// Requests at ThingSpace: one for each key, and a stranger's.
pub const STRANGER: usize = KEYS;
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
    pub look_ups: LookUps,
    pub callbacks: Callbacks,
    /// The stranger's first callback comes before any change is sent.
    pub is_stranger_early: bool,
    /// The clock may be set back once.
    pub clock_leaps: bool,
    pub flaw: Option<Flaw>,
}

/// Whether ThingSpace lists a request's devices when it is asked before a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUps {
    /// eSIM: sooner or later, or never.
    MayFail,
    /// As that. A list may be empty or lack devices, but what it has is not exactly another change's set.
    Incomplete,
    /// A list may lack any devices.
    AnyIncomplete,
    /// 5G Business Internet: there is no such list.
    Nowhere,
}

/// What may be relied on of callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callbacks {
    /// What is not lost comes within `changes.attribution_quiet_period` of the one before, and within
    /// `changes.close_after` of the POST. The stranger's are not lost.
    InTime,
    /// They come when they like.
    AnyTime,
}

/// What a broken protocol does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    SendsAgainAfterATimeOut,
    LooksAtNoKey,
    SendsBeforeTheIntent,
    TakesSentForUnsentAtTheStart,
    ChecksOnlyTheState,
    TakesAPartForTheWhole,
    BindsAtOnce,
    BindsWithoutTheList,
    ForgetsWhatWasGivenUp,
    /// And forgets what was given up, which hides it, as it does once the change is no longer stored.
    TakesResultsFromBeforeItWasSent,
    /// Attributes what it finds at a start at once.
    QuietPeriodEndsAtARestart,
    /// Adds ThingSpace's list to what the callbacks named.
    ListAddsToTheCallbacks,
    /// A closed change that has more devices than were seen is no rival.
    ClosedWithMoreIsNoRival,
    /// Decides by clock times whether a result came before a change was sent.
    ComparesClockTimes,
    AcknowledgesFirst,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The journal: shared, atomic, durable.
    pub rows: [Option<Row>; KEYS],
    pub requests: [Option<Requested>; REQUESTS],
    /// How often ThingSpace has executed each key: up to 2.
    pub executed: [u8; KEYS],
    /// Posts that ThingSpace has not come to yet. Sorted.
    pub posts: Vec<Post>,
    /// What the replicas are doing. Sorted.
    pub jobs: Vec<Job>,
    pub is_up: [bool; REPLICAS],
    pub calls: [u8; KEYS],
    /// The requests that had been heard of when the clock was set back, if it was.
    pub heard_before_the_leap: Option<u8>,
    /// A call with a key came to a replica that had not made the change.
    pub was_retried_elsewhere: bool,
}

/// A change in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: ChangeState,
    /// Counts the claims. Steps of an earlier claim's sender are refused.
    pub fence: u8,
    pub owner: u8,
    pub was_dispatched: bool,
    /// Requests that were heard of before it was sent, by position.
    pub heard: u8,
    /// The same by the clock.
    pub heard_by_clock: u8,
    pub bound: Option<u8>,
    pub by_evidence: bool,
}

/// A request at ThingSpace, and what the journal has of its callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Requested {
    pub devices: Devices,
    /// Results that are in the journal.
    pub stored: Devices,
    /// Callbacks that were answered with 200.
    pub acknowledged: Devices,
    /// The callbacks that have not come are lost.
    pub is_silent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Post {
    pub key: usize,
    pub replica: usize,
    pub fence: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
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
    Answered(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
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
    Dispatch(Job),
    DispatchSeemsToFail {
        job: Job,
        written: bool,
    },
    Send(Job),
    TimeOut(Job),
    Record(Job),
    Execute {
        post: Post,
        answered: bool,
    },
    Refuse(Post),
    DoNotExecute(Post),
    LosePost(Post),
    StrangerExecutes,
    Deliver {
        request: usize,
        device: Devices,
    },
    Acknowledge {
        request: usize,
        device: Devices,
    },
    LoseTheRest {
        request: usize,
    },
    Bind {
        request: usize,
        list: DeviceList,
        listed: Devices,
    },
    SetClockBack,
    LookUp {
        key: usize,
        device: Devices,
    },
    Expire {
        key: usize,
    },
    GiveUp {
        key: usize,
    },
    Crash {
        replica: usize,
    },
    Restart {
        replica: usize,
    },
    /// What nobody sends any more, or so it seems from here: the owner's lease ran out.
    Settle {
        key: usize,
        replica: usize,
    },
}

// === impl State ===

impl State {
    /// Requests that results have named, one bit each.
    pub fn heard(&self) -> u8 {
        let heard = (0..REQUESTS).filter(|of| self.requests[*of].is_some_and(|of| of.stored != 0));
        heard.fold(0, |heard, of| heard | 1 << of)
    }

    pub fn is_bound(&self, request: usize) -> bool {
        let rows = self.rows.iter().flatten();
        rows.filter_map(|row| row.bound)
            .any(|bound| usize::from(bound) == request)
    }

    pub fn move_on(&mut self, key: usize, step: &Step) -> Option<()> {
        let row = self.rows[key].as_mut()?;
        row.state = rule::after(row.state, step)?;
        Some(())
    }

    pub fn turn(&mut self, job: Job, phase: Phase) {
        self.jobs.retain(|other| *other != job);
        self.jobs.push(Job { phase, ..job });
    }

    pub fn take_post(&mut self, post: Post) {
        let index = self.posts.iter().position(|other| *other == post);
        if let Some(index) = index {
            self.posts.remove(index);
        }
    }

    /// An answer reaches whoever waits for it.
    pub fn answer(&mut self, post: Post, answer: Answer) {
        for job in &mut self.jobs {
            if job.post == post && job.phase == Phase::Waiting {
                job.phase = Phase::Answered(answer);
            }
        }
    }
}

// === impl Requested ===

impl Requested {
    pub fn new(devices: Devices) -> Self {
        Self {
            devices,
            stored: 0,
            acknowledged: 0,
            is_silent: false,
        }
    }

    /// Whether no callback will come any more.
    pub fn is_over(self) -> bool {
        self.is_silent || self.stored == self.devices
    }
}
