//! The actions that are possible in each state.

use stateright::{Model, Property};
use thingspace_gateway::domain::state::ChangeState;

use crate::{
    properties,
    protocol::{
        Action, CallbackTiming, ChangeRow, DeviceListStatus, FOREIGN, Flaw, KEYS, Lookups,
        ModelState, Phase, Protocol, REPLICAS, REQUESTS, RequestState, SendJob,
    },
    rules::{self, Devices},
};

impl Model for Protocol {
    type State = ModelState;
    type Action = Action;

    fn init_states(&self) -> Vec<ModelState> {
        let mut is_up = [false; REPLICAS];
        is_up[..self.replicas].fill(true);
        vec![ModelState {
            rows: [None; KEYS],
            requests: [None; REQUESTS],
            executed: [0; KEYS],
            posts: Vec::new(),
            jobs: Vec::new(),
            is_up,
            calls: self.calls,
            seen_before_clock_change: None,
            was_retried_elsewhere: false,
            has_lost_response: false,
        }]
    }

    fn actions(&self, state: &ModelState, actions: &mut Vec<Action>) {
        for replica in 0..self.replicas {
            if state.is_up[replica] {
                actions.push(Action::Crash { replica });
                for key in 0..KEYS {
                    if state.calls[key] > 0 {
                        actions.push(Action::Call { key, replica });
                    }
                }
                if self.has_leases() {
                    actions.push(Action::ExpireLease { replica });
                }
            } else {
                actions.push(Action::Restart { replica });
            }
        }
        for job in &state.jobs {
            self.job_actions(*job, actions);
        }
        for post in &state.posts {
            for responded in [true, false] {
                actions.push(Action::Execute { post: *post, responded });
            }
            actions.extend([
                Action::Refuse(*post),
                Action::DoNotExecute(*post),
                Action::LosePost(*post),
            ]);
        }
        if self.devices[FOREIGN] != 0 && state.requests[FOREIGN].is_none() {
            actions.push(Action::ExecuteForeignRequest);
        }
        if self.clock_can_be_set_back && state.seen_before_clock_change.is_none() {
            actions.push(Action::SetClockBack);
        }
        for request in 0..REQUESTS {
            self.request_actions(state, request, actions);
        }
        for key in 0..KEYS {
            self.background_actions(state, key, actions);
        }
    }

    fn next_state(&self, last: &ModelState, action: Action) -> Option<ModelState> {
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
    fn job_actions(&self, job: SendJob, actions: &mut Vec<Action>) {
        match job.phase {
            Phase::Claimed => {
                actions.push(Action::Dispatch(job));
                for written in [true, false] {
                    actions.push(Action::DispatchWriteFails { job, written });
                }
                if self.flaw == Some(Flaw::SendsBeforeIntent) {
                    actions.push(Action::Send(job));
                }
            }
            Phase::Dispatched => {
                let may_be_valid = !job.has_lost_lease || self.flaw == Some(Flaw::SkipsLeaseCheck);
                actions.push(Action::Check { job, is_valid: false });
                if may_be_valid {
                    actions.push(Action::Check { job, is_valid: true });
                }
            }
            Phase::Checked => actions.push(Action::Send(job)),
            Phase::Waiting => actions.push(Action::TimeOut(job)),
            Phase::Unsent | Phase::Responded(_) => actions.push(Action::Record(job)),
        }
    }

    fn request_actions(&self, state: &ModelState, request: usize, actions: &mut Vec<Action>) {
        let Some(requested) = state.requests[request] else {
            return;
        };
        for device in [rules::A, rules::B, rules::C] {
            if requested.devices & device == 0 {
                continue;
            }
            let (is_stored, is_acknowledged) =
                (requested.stored & device != 0, requested.acknowledged & device != 0);
            let is_too_late = self.is_foreign_request_early
                && request == FOREIGN
                && requested.stored == 0
                && state.rows.iter().flatten().any(|row| row.was_dispatched);
            if !is_stored && !requested.has_lost_callbacks && !is_too_late {
                actions.push(Action::Deliver { request, device });
            }
            let can_precede_store = self.flaw == Some(Flaw::AcknowledgesBeforeStoring);
            if !is_acknowledged
                && (is_stored || can_precede_store)
                && self.has_separate_acknowledgement()
            {
                actions.push(Action::Acknowledge { request, device });
            }
        }
        // `CallbackTiming::InTime` also applies to the foreign request.
        let may_lose = request != FOREIGN || self.callback_timing == CallbackTiming::AnyTime;
        if may_lose && !requested.has_lost_callbacks && requested.stored != requested.devices {
            actions.push(Action::LoseRemainingCallbacks { request });
        }
        if requested.stored != 0 && !state.has_change(request) {
            let is_quiet = requested.is_complete()
                || self.callback_timing == CallbackTiming::AnyTime
                || self.flaw == Some(Flaw::SkipsQuietPeriod);
            let attribute = |list, listed| Action::Attribute { request, list, listed };
            let lists = self.lists(requested.devices);
            actions.extend(lists.map(|listed| attribute(DeviceListStatus::Received, listed)));
            if is_quiet {
                let status = if self.lookups == Lookups::Unsupported {
                    DeviceListStatus::Unsupported
                } else {
                    DeviceListStatus::Unanswered
                };
                actions.push(attribute(status, 0));
            }
        }
    }

    /// Returns the device lists that ThingSpace can return for a request.
    fn lists(&self, devices: Devices) -> impl Iterator<Item = Devices> + '_ {
        let subsets = (0..=devices).filter(move |some| some & !devices == 0);
        subsets.filter(move |listed| {
            let is_another_change = self.devices[..KEYS].contains(listed);
            match self.lookups {
                Lookups::MayFail => *listed == devices,
                Lookups::Incomplete => *listed == devices || !is_another_change,
                Lookups::AnyIncomplete => true,
                Lookups::Unsupported => false,
            }
        })
    }

    fn background_actions(&self, state: &ModelState, key: usize, actions: &mut Vec<Action>) {
        let Some(row) = state.rows[key] else { return };
        if state.is_up.contains(&true) && self.can_settle(&row) {
            actions.push(Action::Settle { key });
        }
        match row.state {
            ChangeState::Accepted => actions.push(Action::MarkOverdue { key }),
            ChangeState::Overdue => actions.push(Action::Close { key }),
            ChangeState::OutcomeUnknown if self.is_past_close_deadline(state, key) => {
                actions.push(Action::Close { key });
            }
            _ => {}
        }
        if let (ChangeState::Accepted | ChangeState::Overdue, Some(request)) =
            (row.state, row.request)
            && let Some(requested) = state.requests[usize::from(request)]
        {
            for device in [rules::A, rules::B, rules::C] {
                if self.devices[key] & requested.devices & !requested.stored & device != 0 {
                    actions.push(Action::Lookup { key, device });
                }
            }
        }
    }

    /// True if the deadline of a change can pass. A replica can be stopped for longer before its last check.
    fn is_past_close_deadline(&self, state: &ModelState, key: usize) -> bool {
        let is_sending = |job: &SendJob| {
            let is_checked =
                matches!(job.phase, Phase::Checked | Phase::Waiting | Phase::Responded(_));
            job.post.key == key && is_checked
        };
        let is_over = state.requests[key].is_none_or(RequestState::is_complete);
        let is_sent = !state.posts.iter().any(|post| post.key == key);
        !(self.is_sending_in_time && state.jobs.iter().any(is_sending))
            && (self.callback_timing == CallbackTiming::AnyTime || is_over && is_sent)
    }

    /// True if any replica may settle a change.
    pub fn can_settle(&self, row: &ChangeRow) -> bool {
        let may_settle = row.has_lost_lease || self.flaw == Some(Flaw::SettlesBeforeExpiry);
        row.state.is_in_flight() && may_settle
    }

    /// True if the replicas share the journal, and each has a lease. A single process owns its journal as long as it
    /// runs.
    pub fn has_leases(&self) -> bool {
        self.replicas > 1
    }

    /// True if storing a callback and acknowledging it are two actions. In larger scenarios they are one
    /// action, which reduces the number of states.
    pub fn has_separate_acknowledgement(&self) -> bool {
        self.calls[1] == 0 && self.devices[FOREIGN] == 0 && self.replicas == 1
    }
}
