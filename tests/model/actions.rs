//! What can happen next.

use stateright::{Model, Property};
use thingspace_gateway::domain::{attribution::DeviceList, change::ChangeState};

use crate::{
    properties,
    protocol::{
        Action, Callbacks, Flaw, Job, KEYS, LookUps, Phase, Protocol, REPLICAS, REQUESTS,
        Requested, Row, STRANGER, State,
    },
    rule::{self, Devices},
};

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut is_up = [false; REPLICAS];
        is_up[..self.replicas].fill(true);
        vec![State {
            rows: [None; KEYS],
            requests: [None; REQUESTS],
            executed: [0; KEYS],
            posts: Vec::new(),
            jobs: Vec::new(),
            is_up,
            calls: self.calls,
            heard_before_the_leap: None,
            was_retried_elsewhere: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..self.replicas {
            if state.is_up[replica] {
                actions.push(Action::Crash { replica });
                for key in 0..KEYS {
                    if state.calls[key] > 0 {
                        actions.push(Action::Call { key, replica });
                    }
                    if self.may_settle(state, key, replica) {
                        actions.push(Action::Settle { key, replica });
                    }
                }
            } else {
                actions.push(Action::Restart { replica });
            }
        }
        for job in &state.jobs {
            self.job_actions(*job, actions);
        }
        for post in &state.posts {
            for answered in [true, false] {
                actions.push(Action::Execute {
                    post: *post,
                    answered,
                });
            }
            actions.extend([
                Action::Refuse(*post),
                Action::DoNotExecute(*post),
                Action::LosePost(*post),
            ]);
        }
        if self.devices[STRANGER] != 0 && state.requests[STRANGER].is_none() {
            actions.push(Action::StrangerExecutes);
        }
        if self.clock_leaps && state.heard_before_the_leap.is_none() {
            actions.push(Action::SetClockBack);
        }
        for request in 0..REQUESTS {
            self.request_actions(state, request, actions);
        }
        for key in 0..KEYS {
            self.upkeep_actions(state, key, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.apply(&mut state, action)?;
        for key in 0..KEYS {
            self.complete(&mut state, key);
        }
        state.jobs.sort_unstable();
        state.posts.sort_unstable();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl Protocol {
    fn job_actions(&self, job: Job, actions: &mut Vec<Action>) {
        match job.phase {
            Phase::Claimed => {
                actions.push(Action::Dispatch(job));
                for written in [true, false] {
                    actions.push(Action::DispatchSeemsToFail { job, written });
                }
                if self.flaw == Some(Flaw::SendsBeforeTheIntent) {
                    actions.push(Action::Send(job));
                }
            }
            Phase::Dispatched => actions.push(Action::Send(job)),
            Phase::Waiting => actions.push(Action::TimeOut(job)),
            Phase::Undispatched | Phase::Answered(_) => actions.push(Action::Record(job)),
        }
    }

    fn request_actions(&self, state: &State, request: usize, actions: &mut Vec<Action>) {
        let Some(requested) = state.requests[request] else {
            return;
        };
        for device in [rule::A, rule::B, rule::C] {
            if requested.devices & device == 0 {
                continue;
            }
            let (is_stored, is_acknowledged) = (
                requested.stored & device != 0,
                requested.acknowledged & device != 0,
            );
            let is_too_late = self.is_stranger_early
                && request == STRANGER
                && requested.stored == 0
                && state.rows.iter().flatten().any(|row| row.was_dispatched);
            if !is_stored && !requested.is_silent && !is_too_late {
                actions.push(Action::Deliver { request, device });
            }
            let first = self.flaw == Some(Flaw::AcknowledgesFirst);
            if !is_acknowledged && (is_stored || first) && self.acknowledges_apart() {
                actions.push(Action::Acknowledge { request, device });
            }
        }
        // A stranger's request is confined to what `Callbacks::InTime` says.
        let may_lose = request != STRANGER || self.callbacks == Callbacks::AnyTime;
        if may_lose && !requested.is_silent && requested.stored != requested.devices {
            actions.push(Action::LoseTheRest { request });
        }
        if requested.stored != 0 && !state.is_bound(request) {
            let is_quiet = requested.is_over()
                || self.callbacks == Callbacks::AnyTime
                || self.flaw == Some(Flaw::BindsAtOnce);
            let bind = |list, listed| Action::Bind {
                request,
                list,
                listed,
            };
            let lists = self.lists(requested.devices);
            actions.extend(lists.map(|listed| bind(DeviceList::Received, listed)));
            match self.look_ups {
                LookUps::Nowhere if is_quiet => actions.push(bind(DeviceList::Unsupported, 0)),
                LookUps::Nowhere => {}
                _ if is_quiet => actions.push(bind(DeviceList::Unanswered, 0)),
                _ => {}
            }
        }
    }

    /// The lists of a request's devices that ThingSpace may return.
    fn lists(&self, devices: Devices) -> impl Iterator<Item = Devices> + '_ {
        let subsets = (0..=devices).filter(move |some| some & !devices == 0);
        subsets.filter(move |listed| {
            let is_anothers = self.devices[..KEYS].contains(listed);
            match self.look_ups {
                LookUps::MayFail => *listed == devices,
                LookUps::Incomplete => *listed == devices || !is_anothers,
                LookUps::AnyIncomplete => true,
                LookUps::Nowhere => false,
            }
        })
    }

    fn upkeep_actions(&self, state: &State, key: usize, actions: &mut Vec<Action>) {
        let Some(row) = state.rows[key] else { return };
        match row.state {
            ChangeState::Accepted => actions.push(Action::Expire { key }),
            ChangeState::Overdue => actions.push(Action::GiveUp { key }),
            ChangeState::OutcomeUnknown if self.is_long_past(state, key) => {
                actions.push(Action::GiveUp { key });
            }
            _ => {}
        }
        if let (ChangeState::Accepted | ChangeState::Overdue, Some(bound)) = (row.state, row.bound)
            && let Some(requested) = state.requests[usize::from(bound)]
        {
            for device in [rule::A, rule::B, rule::C] {
                if self.devices[key] & requested.devices & !requested.stored & device != 0 {
                    actions.push(Action::LookUp { key, device });
                }
            }
        }
    }

    /// Whether nothing of a change can come any more.
    fn is_long_past(&self, state: &State, key: usize) -> bool {
        let is_over = state.requests[key].is_none_or(Requested::is_over);
        let is_sent = !state.posts.iter().any(|post| post.key == key)
            && !state.jobs.iter().any(|job| job.post.key == key);
        self.callbacks == Callbacks::AnyTime || is_over && is_sent
    }

    fn may_settle(&self, state: &State, key: usize, replica: usize) -> bool {
        let is_mine = |row: &Row| {
            let mine = |job: &Job| {
                job.post.key == key && job.post.replica == replica && job.post.fence == row.fence
            };
            state.jobs.iter().any(mine)
        };
        state.rows[key]
            .as_ref()
            .is_some_and(|row| row.state.is_in_flight() && !is_mine(row))
    }

    /// Where nothing else happens, storing and the answer 200 are two steps. Elsewhere they are one,
    /// which makes fewer states of it.
    pub fn acknowledges_apart(&self) -> bool {
        self.calls[1] == 0 && self.devices[STRANGER] == 0 && self.replicas == 1
    }
}
