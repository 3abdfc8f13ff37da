//! What it does.

use thingspace_gateway::domain::{
    attribution::{Coverage, DeviceList},
    change::{ChangeState, Step},
};

use crate::{
    protocol::{
        Action, Answer, Flaw, Job, KEYS, Phase, Post, Protocol, REQUESTS, Requested, Row, STRANGER,
        State,
    },
    rule::{self, Devices},
};

impl Protocol {
    pub fn apply(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Call { key, replica } => {
                state.calls[key] -= 1;
                self.claim(state, key, replica);
            }
            Action::Dispatch(job) => {
                let is_written = self.step(state, job.post, &rule::dispatch());
                let next = if is_written {
                    Phase::Dispatched
                } else {
                    Phase::Undispatched
                };
                state.turn(job, next);
            }
            Action::DispatchSeemsToFail { job, written } => {
                if written {
                    self.step(state, job.post, &rule::dispatch());
                }
                state.turn(job, Phase::Undispatched);
            }
            Action::Send(job) => {
                state.posts.push(job.post);
                state.turn(job, Phase::Waiting);
            }
            Action::TimeOut(job) if self.flaw == Some(Flaw::SendsAgainAfterATimeOut) => {
                state.turn(job, Phase::Dispatched);
            }
            Action::TimeOut(job) => state.turn(job, Phase::Answered(Answer::None)),
            Action::Record(job) => self.record(state, job),
            Action::Execute { post, answered } => {
                state.take_post(post);
                state.executed[post.key] = (state.executed[post.key] + 1).min(2);
                let devices = self.devices[post.key];
                state.requests[post.key].get_or_insert(Requested::new(devices));
                if answered {
                    state.answer(post, Answer::Accepted);
                }
            }
            Action::Refuse(post) => {
                state.take_post(post);
                state.answer(post, Answer::Refused);
            }
            Action::DoNotExecute(post) => {
                state.take_post(post);
                state.answer(post, Answer::NotExecuted);
            }
            Action::LosePost(post) => state.take_post(post),
            Action::StrangerExecutes => {
                state.requests[STRANGER] = Some(Requested::new(self.devices[STRANGER]));
            }
            Action::Deliver { request, device } => {
                let requested = state.requests[request].as_mut()?;
                requested.stored |= device;
                if !self.acknowledges_apart() {
                    requested.acknowledged |= device;
                }
            }
            Action::Acknowledge { request, device } => {
                state.requests[request].as_mut()?.acknowledged |= device;
            }
            Action::LoseTheRest { request } => state.requests[request].as_mut()?.is_silent = true,
            Action::Bind {
                request,
                list,
                listed,
            } => self.bind(state, request, list, listed)?,
            Action::SetClockBack => state.heard_before_the_leap = Some(state.heard()),
            Action::LookUp { key, device } => {
                let request = usize::from(state.rows[key]?.bound?);
                state.requests[request].as_mut()?.stored |= device;
            }
            Action::Expire { key } => state.move_on(key, &Step::Expire)?,
            Action::GiveUp { key } => state.move_on(key, &Step::GiveUp)?,
            Action::Crash { replica } => {
                state.is_up[replica] = false;
                state.jobs.retain(|job| job.post.replica != replica);
            }
            Action::Restart { replica } => {
                state.is_up[replica] = true;
                if self.flaw == Some(Flaw::QuietPeriodEndsAtARestart) {
                    for request in 0..REQUESTS {
                        if !state.is_bound(request) {
                            // Nothing is attributed where nothing fits.
                            let _none = self.bind(state, request, DeviceList::Unsupported, 0);
                        }
                    }
                }
            }
            Action::Settle { key, .. } => {
                let step = match state.rows[key]?.state {
                    ChangeState::Queued => rule::not_sent(),
                    _ if self.flaw == Some(Flaw::TakesSentForUnsentAtTheStart) => rule::not_sent(),
                    _ => Step::LoseAnswer,
                };
                state.move_on(key, &step)?;
            }
        }
        Some(())
    }

    /// One transaction: the key, the devices, the intent.
    fn claim(&self, state: &mut State, key: usize, replica: usize) {
        let owner = u8::try_from(replica).unwrap();
        let is_busy = (0..KEYS).any(|other| {
            let row = state.rows[other].filter(|row| row.state.is_under_way());
            other != key && row.is_some() && self.devices[other] & self.devices[key] != 0
        });
        let row = match state.rows[key] {
            Some(row) if self.flaw != Some(Flaw::LooksAtNoKey) => {
                state.was_retried_elsewhere |= row.owner != owner;
                let queued = rule::after(row.state, &Step::Rearm);
                queued.map(|state| Row { state, ..row })
            }
            row => Some(Row {
                state: ChangeState::Queued,
                fence: row.map_or(0, |row| row.fence),
                owner,
                was_dispatched: false,
                heard: 0,
                heard_by_clock: 0,
                bound: None,
                by_evidence: false,
            }),
        };
        if let Some(row) = row
            && !is_busy
        {
            let fence = row.fence + 1;
            state.rows[key] = Some(Row {
                fence,
                owner,
                ..row
            });
            state.jobs.push(Job {
                post: Post {
                    key,
                    replica,
                    fence,
                },
                phase: Phase::Claimed,
            });
        }
    }

    /// A step of a change's sender, if the journal takes it from this one.
    fn step(&self, state: &mut State, post: Post, step: &Step) -> bool {
        let heard = state.heard();
        let heard_by_clock = heard & !state.heard_before_the_leap.unwrap_or(0);
        let Some(row) = &mut state.rows[post.key] else {
            return false;
        };
        let is_senders = row.fence == post.fence
            || matches!(step, Step::Accept { .. })
            || self.flaw == Some(Flaw::ChecksOnlyTheState);
        let Some(next) = rule::after(row.state, step).filter(|_| is_senders) else {
            return false;
        };
        row.state = next;
        match step {
            Step::Dispatch { .. } => {
                row.was_dispatched = true;
                (row.heard, row.heard_by_clock) = (heard, heard_by_clock);
            }
            Step::Accept { .. } => row.bound = u8::try_from(post.key).ok(),
            _ => {}
        }
        true
    }

    /// Writes what came of a POST. What the journal does not take is no news any more.
    fn record(&self, state: &mut State, job: Job) {
        let step = match job.phase {
            Phase::Answered(Answer::Accepted) => rule::accept(),
            Phase::Answered(Answer::Refused) => rule::refuse(),
            Phase::Answered(Answer::None) => Step::LoseAnswer,
            _ => rule::not_sent(),
        };
        if self.flaw == Some(Flaw::SendsBeforeTheIntent) {
            self.step(state, job.post, &rule::dispatch());
        }
        self.step(state, job.post, &step);
        state.jobs.retain(|other| *other != job);
    }

    fn bind(
        &self,
        state: &mut State,
        request: usize,
        list: DeviceList,
        listed: Devices,
    ) -> Option<()> {
        let requested = state.requests[request]?;
        let look = |listed| {
            let rules = &self.rules;
            rules.attribute(&state.rows, request, requested, listed, self.flaw)
        };
        // As `submit::attribution` does it: asked about only if a change comes into question.
        look(None)?;
        let has_list = list == DeviceList::Received;
        let (key, coverage) = look(has_list.then_some(listed))?;
        let may_bind = list.permits_attribution() || self.flaw == Some(Flaw::BindsWithoutTheList);
        if coverage == Coverage::Whole && may_bind {
            state.move_on(key, &rule::accept())?;
            let row = state.rows[key].as_mut()?;
            (row.bound, row.by_evidence) = (u8::try_from(request).ok(), true);
        }
        Some(())
    }

    /// FINISHED is written with the last result.
    pub fn complete(&self, state: &mut State, key: usize) {
        let bound = state.rows[key].and_then(|row| row.bound);
        let requested = bound.and_then(|request| state.requests[usize::from(request)]);
        let devices = self.devices[key];
        if requested.is_some_and(|of| of.stored & devices == devices) {
            // Too late for a change that was given up: then it stays so.
            let _given_up = state.move_on(key, &Step::Complete);
        }
    }
}
