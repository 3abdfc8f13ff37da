//! Executes a change, or finds out why not.
//!
//! Everything that speaks against it is looked at before the ledger is written,
//! which is the execution; everything after that happens to the answer.

use std::sync::Arc;

use tokio::time::Instant;

use super::answer::{Executed, NotExecuted};
use super::changes::{Asked, ChangeKind};
use super::course::{Before, Reply};
use super::delivery::Job;
use super::devices::Record;
use super::errors::Refusal;
use super::fate::{Fate, Luck, When};
use super::identifiers::Device;
use super::ledger::{self, Execution, Subject};
use super::platform::{Gate, Platform};
use super::scenario::{self, Does, Hit};

/// The credentials that a request came with.
pub(super) struct Presented {
    pub(super) token: String,
    pub(super) session: String,
}

impl Platform {
    /// Executes a change and returns its request id when it is time to answer.
    /// Whether the caller still waits makes no difference to the callbacks.
    pub(super) async fn execute(
        self: &Arc<Self>,
        mut asked: Asked,
        presented: &Presented,
    ) -> Result<Executed, NotExecuted> {
        if self.stop.is_cancelled() {
            return Err(Refusal::stopping().into());
        }
        let received = Instant::now();
        let (reply, account) = match self.judge(&asked, presented) {
            Ok(judged) => judged,
            Err(not_executed) => {
                self.write_down(&asked, &not_executed);
                return Err(not_executed);
            }
        };
        let reversed = scenario::all(asked.kind, &asked.devices)
            .iter()
            .any(|hit| hit.scenario.does == Does::Reversed);
        let service_plan: Arc<str> = asked.service_plan.as_str().into();
        let devices = std::mem::take(&mut asked.devices);
        let subjects: Arc<[Subject]> = {
            let mut known = self.devices();
            let meet = |sent| {
                let record = known.meet(asked.kind, &sent);
                self.subject(asked.kind, sent, record, &account, &service_plan)
            };
            devices.into_iter().map(meet).collect()
        };
        let execution = Execution {
            account,
            service_plan,
            reply,
            received_at_ms: self.now_ms(),
        };
        let change = self
            .ledger()
            .accept(&asked, execution, Arc::clone(&subjects));
        let is_early = |subject: &&Subject| subject.fate.when == When::Early;
        let gate = Arc::new(Gate::new(subjects.iter().filter(is_early).count()));
        let answer_delay = match reply {
            Reply::Slow => self.settings.slow_answer,
            _ => self.settings.answer_delay,
        };
        let answered_at = received + answer_delay;
        let request_id = change.request_id.clone();
        tracing::debug!(request_id, devices = subjects.len(), "change executed");
        let first = subjects.first().map_or(0, |subject| subject.record.key);
        self.deliver(Job {
            order: self.fates.order(first, subjects.len(), reversed),
            change,
            subjects,
            answered_at,
            gate: Arc::clone(&gate),
        });
        self.wait_to_answer(answered_at, &gate).await?;
        Ok(Executed { request_id, reply })
    }

    /// How the request will be answered and whose devices it is about, unless
    /// something speaks against it.
    fn judge(
        &self,
        asked: &Asked,
        presented: &Presented,
    ) -> Result<(Reply, Arc<str>), NotExecuted> {
        let account: Arc<str> = match &asked.account {
            Some(account) => account.as_str().into(),
            None => {
                let only = self.registrations().only_account();
                only.map_err(|invalid| asked.kind.refuse(invalid))?.into()
            }
        };
        let reply = self.reply(asked, presented)?;
        self.ledger().has_room(asked.devices.len())?;
        Ok((reply, account))
    }

    /// How the request will be answered, unless something speaks against it:
    /// first what its devices ask for, then the seed.
    fn reply(&self, asked: &Asked, presented: &Presented) -> Result<Reply, NotExecuted> {
        let hits = scenario::all(asked.kind, &asked.devices);
        for hit in &hits {
            if let Does::Before(before) = hit.scenario.does {
                self.stop_by(asked.kind, before, hit, presented)?;
            }
        }
        let (key, before) = self.times_asked(asked);
        let told = hits.iter().find_map(|hit| match hit.scenario.does {
            Does::Reply(reply) => Some(reply),
            _ => None,
        });
        // Whoever asks for a scenario of the request gets it, and no luck besides.
        let of_request = |hit: &Hit<'_>| hit.scenario.fate().is_none();
        if told.is_some() || hits.iter().any(of_request) {
            return Ok(told.unwrap_or(Reply::RequestId));
        }
        match self.fates.request(key, before) {
            Luck::Good => Ok(Reply::RequestId),
            Luck::RequestDropped => Err(NotExecuted::Dropped),
            Luck::AnswerDropped => Ok(Reply::Dropped),
            Luck::Error { executed: true } => Ok(Reply::Failed),
            Luck::Error { executed: false } => Err(Refusal::failed().into()),
        }
    }

    /// What the request's luck is drawn with: its first device, and how often
    /// that was asked for before.
    fn times_asked(&self, asked: &Asked) -> (u64, u64) {
        let Some(first) = asked.devices.first() else {
            return (0, 0);
        };
        let record = self.devices().meet(asked.kind, first);
        (record.key, record.ask())
    }

    fn stop_by(
        &self,
        kind: ChangeKind,
        before: Before,
        hit: &Hit<'_>,
        presented: &Presented,
    ) -> Result<(), NotExecuted> {
        let refuses = |credential| {
            self.once()
                .refuses(hit.scenario.number, hit.identifier, credential)
        };
        let refusal = match before {
            Before::Token(refusal) if refuses(Some(&presented.token)) => {
                self.auth().retire(&presented.token);
                refusal.refusal()
            }
            Before::Session(refusal) if refuses(Some(&presented.session)) => refusal.refusal(),
            Before::Throttled(throttle) if refuses(None) => throttle.refusal(),
            Before::Token(_) | Before::Session(_) | Before::Throttled(_) => return Ok(()),
            Before::Refused(rule) => kind.refuse(rule.invalid()),
            Before::Failed => Refusal::failed(),
            Before::Dropped => return Err(NotExecuted::Dropped),
        };
        Err(refusal.into())
    }

    /// A device of a change that is executed now.
    fn subject(
        &self,
        kind: ChangeKind,
        sent: Device,
        record: Arc<Record>,
        account: &Arc<str>,
        service_plan: &Arc<str>,
    ) -> Subject {
        let scenario = scenario::of(kind, &sent).map(|hit| hit.scenario);
        let before = record.execute();
        let fate = match scenario {
            Some(scenario) => scenario.fate().unwrap_or(Fate::PLAIN),
            None => self.fates.device(record.key, before),
        };
        record.known().account = Some(Arc::clone(account));
        // Of any other device, whoever looked before the change would have seen that it is not.
        if fate.on_plan_before && record.known().is_resident {
            record.put_on(service_plan);
        }
        Subject::new(sent, record, fate, scenario.map(|scenario| scenario.name))
    }

    fn write_down(&self, asked: &Asked, why: &NotExecuted) {
        let mut ledger = self.ledger();
        if matches!(why, NotExecuted::Dropped) {
            // It has no answer that the layer of answers could count.
            ledger.count_refused(why.reason());
        }
        ledger.refuse(ledger::NotExecuted {
            received_at_ms: self.now_ms(),
            kind: asked.kind.name(),
            reason: why.reason(),
            account: asked.account.clone(),
            service_plan: asked.service_plan.clone(),
            devices: asked.devices.len(),
            first_device: asked.devices.first().cloned(),
        });
    }
}
