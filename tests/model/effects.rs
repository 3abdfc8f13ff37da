//! The effects of each action.

use thingspace_gateway::domain::{
    attribution::DeviceCoverage,
    state::{ChangeState, Transition},
};

use crate::{
    protocol::{
        Action, ChangeRow, DeviceListStatus, FOREIGN, Flaw, KEYS, ModelState, Phase, Post,
        PostResponse, Protocol, REQUESTS, RequestState, SendJob,
    },
    rules::{self, Devices},
};

impl Protocol {
    pub fn apply(&self, state: &mut ModelState, action: Action) -> Option<()> {
        match action {
            Action::Call { key, replica } => {
                state.calls[key] -= 1;
                self.claim(state, key, replica);
            }
            Action::Dispatch(job) => {
                if self.apply_sender_transition(state, job.post, &rules::dispatch()) {
                    let next = if self.has_leases() { Phase::Dispatched } else { Phase::Checked };
                    state.advance(job, next);
                } else {
                    state.end(job);
                }
            }
            Action::DispatchWriteFails { job, written } => {
                if written {
                    self.apply_sender_transition(state, job.post, &rules::dispatch());
                }
                state.advance(job, Phase::Unsent);
            }
            Action::Check { job, is_valid: true } => state.advance(job, Phase::Checked),
            Action::Check { job, .. } if self.flaw == Some(Flaw::ForgetsUnsentChange) => {
                state.end(job);
            }
            Action::Check { job, .. } => state.advance(job, Phase::Unsent),
            Action::Send(job) => {
                state.posts.push(job.post);
                state.advance(job, Phase::Waiting);
            }
            Action::TimeOut(job) if self.flaw == Some(Flaw::RetriesAfterTimeout) => {
                state.advance(job, Phase::Checked);
            }
            Action::TimeOut(job) => state.advance(job, Phase::Responded(PostResponse::None)),
            Action::Record(job) => self.record(state, job),
            Action::Execute { post, responded } => {
                state.remove_post(post);
                state.executed[post.key] = (state.executed[post.key] + 1).min(2);
                let devices = self.devices[post.key];
                state.requests[post.key].get_or_insert(RequestState::new(devices));
                if responded {
                    state.deliver_response(post, PostResponse::Accepted);
                }
            }
            Action::Refuse(post) => {
                state.remove_post(post);
                state.deliver_response(post, PostResponse::Refused);
            }
            Action::DoNotExecute(post) => {
                state.remove_post(post);
                state.deliver_response(post, PostResponse::NotExecuted);
            }
            Action::LosePost(post) => state.remove_post(post),
            Action::ExecuteForeignRequest => {
                state.requests[FOREIGN] = Some(RequestState::new(self.devices[FOREIGN]));
            }
            Action::Deliver { request, device } => {
                let requested = state.requests[request].as_mut()?;
                requested.stored |= device;
                if !self.has_separate_acknowledgement() {
                    requested.acknowledged |= device;
                }
            }
            Action::Acknowledge { request, device } => {
                state.requests[request].as_mut()?.acknowledged |= device;
            }
            Action::LoseRemainingCallbacks { request } => {
                state.requests[request].as_mut()?.has_lost_callbacks = true
            }
            Action::Attribute { request, list, listed } => {
                self.attribute(state, request, list, listed)?
            }
            Action::SetClockBack => {
                state.seen_before_clock_change = Some(state.requests_with_results())
            }
            Action::Lookup { key, device } => {
                let request = usize::from(state.rows[key]?.request?);
                state.requests[request].as_mut()?.stored |= device;
            }
            Action::MarkOverdue { key } => state.apply_transition(key, &Transition::MarkOverdue)?,
            Action::Close { key } => state.apply_transition(key, &Transition::Close)?,
            Action::ExpireLease { replica } => state.expire_lease(replica),
            Action::Crash { replica } => {
                state.is_up[replica] = false;
                state.jobs.retain(|job| job.post.replica != replica);
                state.expire_lease(replica);
            }
            Action::Restart { replica } => {
                state.is_up[replica] = true;
                if self.flaw == Some(Flaw::EndsQuietPeriodAtRestart) {
                    for request in 0..REQUESTS {
                        if !state.has_change(request) {
                            // No change fits.
                            let _none =
                                self.attribute(state, request, DeviceListStatus::Unsupported, 0);
                        }
                    }
                }
            }
            Action::Settle { key } => {
                let is_not_sent = state.rows[key]?.state == ChangeState::Queued
                    || self.flaw == Some(Flaw::SettlesDispatchedAsNotSent);
                let transition =
                    if is_not_sent { rules::not_sent() } else { Transition::MarkOutcomeUnknown };
                state.apply_transition(key, &transition)?;
            }
        }
        Some(())
    }

    /// Claims the key and the devices, and stores the intent, in one transaction.
    fn claim(&self, state: &mut ModelState, key: usize, replica: usize) {
        let owner = u8::try_from(replica).unwrap();
        let is_busy = (0..KEYS).any(|other| {
            let row = state.rows[other].filter(|row| row.state.has_device_lock());
            other != key && row.is_some() && self.devices[other] & self.devices[key] != 0
        });
        let row = match state.rows[key] {
            Some(row) if self.flaw != Some(Flaw::SkipsKeyCheck) => {
                state.was_retried_elsewhere |= row.owner != owner;
                let queued = rules::after(row.state, &Transition::Rearm);
                queued.map(|state| ChangeRow { state, ..row })
            }
            row => Some(ChangeRow {
                state: ChangeState::Queued,
                attempt: row.map_or(0, |row| row.attempt),
                owner,
                has_lost_lease: false,
                was_dispatched: false,
                seen_before_dispatch: 0,
                seen_before_dispatch_by_clock: 0,
                request: None,
                is_attributed: false,
            }),
        };
        if let Some(row) = row
            && !is_busy
        {
            let attempt = row.attempt + 1;
            state.rows[key] = Some(ChangeRow { attempt, owner, ..row });
            let post = Post { key, replica, attempt };
            state.jobs.push(SendJob { post, phase: Phase::Claimed, has_lost_lease: false });
        }
    }

    /// Applies a transition of a sender. Returns false if the journal rejects it.
    fn apply_sender_transition(
        &self,
        state: &mut ModelState,
        post: Post,
        transition: &Transition,
    ) -> bool {
        let seen = state.requests_with_results();
        let seen_by_clock = seen & !state.seen_before_clock_change.unwrap_or(0);
        let Some(row) = &mut state.rows[post.key] else {
            return false;
        };
        let is_accepted = row.attempt == post.attempt
            || !transition.is_of_sender()
            || self.flaw == Some(Flaw::SkipsFencing);
        let Some(next) = rules::after(row.state, transition).filter(|_| is_accepted) else {
            return false;
        };
        row.enter(next);
        match transition {
            Transition::Dispatch { .. } => {
                row.was_dispatched = true;
                (row.seen_before_dispatch, row.seen_before_dispatch_by_clock) =
                    (seen, seen_by_clock);
            }
            Transition::Accept { .. } => row.request = u8::try_from(post.key).ok(),
            _ => {}
        }
        true
    }

    /// Stores the response to a POST, or that there was none, unless the journal rejects the transition.
    fn record(&self, state: &mut ModelState, job: SendJob) {
        let transition = match job.phase {
            Phase::Responded(PostResponse::Accepted) => rules::accept(),
            Phase::Responded(PostResponse::Refused) => rules::refuse(),
            Phase::Responded(PostResponse::None) => Transition::MarkOutcomeUnknown,
            _ => rules::not_sent(),
        };
        if self.flaw == Some(Flaw::SendsBeforeIntent) {
            self.apply_sender_transition(state, job.post, &rules::dispatch());
        }
        self.apply_sender_transition(state, job.post, &transition);
        state.end(job);
        let key = job.post.key;
        let Some(row) = state.rows[key] else { return };
        state.has_lost_response |= match job.phase {
            Phase::Responded(PostResponse::Accepted) => row.request.map(usize::from) != Some(key),
            Phase::Responded(PostResponse::Refused) => row.state != ChangeState::Rejected,
            Phase::Responded(PostResponse::NotExecuted) => row.state != ChangeState::NotSent,
            _ => false,
        };
    }

    fn attribute(
        &self,
        state: &mut ModelState,
        request: usize,
        list: DeviceListStatus,
        listed: Devices,
    ) -> Option<()> {
        let requested = state.requests[request]?;
        let select = |listed| {
            let rules = &self.rules;
            rules.attribute(&state.rows, request, requested, listed, self.flaw)
        };
        // Like `dispatch::attribution`, looks up the list only if a change comes into question.
        select(None)?;
        let has_list = list == DeviceListStatus::Received;
        let (key, coverage) = select(has_list.then_some(listed))?;
        let may_attribute =
            list != DeviceListStatus::Unanswered || self.flaw == Some(Flaw::SkipsDeviceList);
        if coverage == DeviceCoverage::Whole && may_attribute {
            state.apply_transition(key, &rules::accept())?;
            let row = state.rows[key].as_mut()?;
            (row.request, row.is_attributed) = (u8::try_from(request).ok(), true);
        }
        Some(())
    }

    /// Finishes a change in the transaction of its last result.
    pub fn complete(&self, state: &mut ModelState, key: usize) {
        let request = state.rows[key].and_then(|row| row.request);
        let requested = request.and_then(|request| state.requests[usize::from(request)]);
        let devices = self.devices[key];
        if requested.is_some_and(|of| of.stored & devices == devices) {
            // A closed change stays closed.
            let _closed = state.apply_transition(key, &Transition::Finish);
        }
    }
}
