//! Executes a change, or finds out why not.
//!
//! Everything that speaks against it is looked at before the ledger is written,
//! which is the execution; everything after that happens to the answer.

use std::sync::Arc;

use tokio::time::Instant;

use crate::callback::delivery::DeliveryJob;
use crate::device_outcome::{CallbackTiming, DeviceOutcome, SeededRequestFault};
use crate::devices::DeviceRecord;
use crate::errors::ErrorResponse;
use crate::http::change_response::{AcceptedChange, NotExecuted};
use crate::identifiers::DeviceIds;
use crate::json_body::{ChangeRequest, OperationKind};
use crate::ledger::{self, DeviceChange, Execution};
use crate::platform::{EarlyCallbackBarrier, Platform};
use crate::request_outcome::{NotExecutedCause, ResponseKind};
use crate::scenario::{self, ScenarioEffect, ScenarioMatch};

/// The credentials that a request came with.
pub(crate) struct RequestCredentials {
    pub(crate) token: String,
    pub(crate) session: String,
}

impl Platform {
    /// Executes a change and returns its request id when it is time to answer.
    /// Whether the caller still waits makes no difference to the callbacks.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        mut request: ChangeRequest,
        presented: &RequestCredentials,
    ) -> Result<AcceptedChange, NotExecuted> {
        if self.stop.is_cancelled() {
            return Err(ErrorResponse::stopping().into());
        }
        let received = Instant::now();
        let (reply, account) = match self.admit(&request, presented) {
            Ok(judged) => judged,
            Err(not_executed) => {
                self.record_not_executed(&request, &not_executed);
                return Err(not_executed);
            }
        };
        let reversed = scenario::match_devices(request.operation, &request.devices)
            .iter()
            .any(|hit| hit.scenario.effect == ScenarioEffect::ReversedOrder);
        let service_plan: Arc<str> = request.service_plan.as_str().into();
        let devices = std::mem::take(&mut request.devices);
        let subjects: Arc<[DeviceChange]> = {
            let mut known = self.devices();
            let meet = |sent| {
                let record = known.find_or_create(request.operation, &sent);
                self.build_device_change(request.operation, sent, record, &account, &service_plan)
            };
            devices.into_iter().map(meet).collect()
        };
        let execution = Execution {
            account,
            service_plan,
            response_kind: reply,
            received_at_ms: self.now_ms(),
        };
        let change = self
            .ledger()
            .record_executed(&request, execution, Arc::clone(&subjects));
        let is_early =
            |subject: &&DeviceChange| subject.planned_outcome.timing == CallbackTiming::Early;
        let gate = Arc::new(EarlyCallbackBarrier::new(
            subjects.iter().filter(is_early).count(),
        ));
        let answer_delay = match reply {
            ResponseKind::Slow => self.settings.slow_response_delay,
            _ => self.settings.response_delay,
        };
        let answered_at = received + answer_delay;
        let request_id = change.request_id.clone();
        tracing::debug!(request_id, devices = subjects.len(), "change executed");
        let first = subjects.first().map_or(0, |subject| subject.record.rng_key);
        self.deliver(DeliveryJob {
            order: self
                .seeded_faults
                .callback_order(first, subjects.len(), reversed),
            change,
            devices: subjects,
            respond_at: answered_at,
            barrier: Arc::clone(&gate),
        });
        self.wait_to_respond(answered_at, &gate).await?;
        Ok(AcceptedChange {
            request_id,
            response_kind: reply,
        })
    }

    /// How the request will be answered and whose devices it is about, unless
    /// something speaks against it.
    fn admit(
        &self,
        request: &ChangeRequest,
        presented: &RequestCredentials,
    ) -> Result<(ResponseKind, Arc<str>), NotExecuted> {
        let account: Arc<str> = match &request.account {
            Some(account) => account.as_str().into(),
            None => {
                let only = self.registrations().only_account();
                only.map_err(|invalid| request.operation.error_response(invalid))?
                    .into()
            }
        };
        let reply = self.choose_response(request, presented)?;
        self.ledger().check_capacity(request.devices.len())?;
        Ok((reply, account))
    }

    /// How the request will be answered, unless something speaks against it:
    /// first what its devices ask for, then the seed.
    fn choose_response(
        &self,
        request: &ChangeRequest,
        presented: &RequestCredentials,
    ) -> Result<ResponseKind, NotExecuted> {
        let hits = scenario::match_devices(request.operation, &request.devices);
        for hit in &hits {
            if let ScenarioEffect::NotExecuted(before) = hit.scenario.effect {
                self.reject_by_scenario(request.operation, before, hit, presented)?;
            }
        }
        let (key, before) = self.request_rng_key(request);
        let response_kind = hits.iter().find_map(|hit| match hit.scenario.effect {
            ScenarioEffect::Response(reply) => Some(reply),
            _ => None,
        });
        // Whoever asks for a scenario of the request gets it, and no luck besides.
        let of_request = |hit: &ScenarioMatch<'_>| hit.scenario.device_outcome().is_none();
        if response_kind.is_some() || hits.iter().any(of_request) {
            return Ok(response_kind.unwrap_or(ResponseKind::RequestId));
        }
        match self.seeded_faults.request_fault(key, before) {
            SeededRequestFault::NoFault => Ok(ResponseKind::RequestId),
            SeededRequestFault::RequestDropped => Err(NotExecuted::Dropped),
            SeededRequestFault::ResponseDropped => Ok(ResponseKind::Dropped),
            SeededRequestFault::Error { executed: true } => Ok(ResponseKind::ServerError),
            SeededRequestFault::Error { executed: false } => {
                Err(ErrorResponse::server_error().into())
            }
        }
    }

    /// What the request's luck is drawn with: its first device, and how often
    /// that was asked for before.
    fn request_rng_key(&self, request: &ChangeRequest) -> (u64, u64) {
        let Some(first) = request.devices.first() else {
            return (0, 0);
        };
        let record = self.devices().find_or_create(request.operation, first);
        (record.rng_key, record.record_request())
    }

    fn reject_by_scenario(
        &self,
        kind: OperationKind,
        before: NotExecutedCause,
        hit: &ScenarioMatch<'_>,
        presented: &RequestCredentials,
    ) -> Result<(), NotExecuted> {
        let refuses = |credential| {
            self.one_shot()
                .should_reject(hit.scenario.number, hit.identifier, credential)
        };
        let refusal = match before {
            NotExecutedCause::Token(refusal) if refuses(Some(&presented.token)) => {
                self.auth().stop_reissuing(&presented.token);
                refusal.error_response()
            }
            NotExecutedCause::Session(refusal) if refuses(Some(&presented.session)) => {
                refusal.error_response()
            }
            NotExecutedCause::Throttled(throttle) if refuses(None) => throttle.error_response(),
            NotExecutedCause::Token(_)
            | NotExecutedCause::Session(_)
            | NotExecutedCause::Throttled(_) => return Ok(()),
            NotExecutedCause::PlatformRule(rule) => kind.error_response(rule.validation_error()),
            NotExecutedCause::ServerError => ErrorResponse::server_error(),
            NotExecutedCause::Dropped => return Err(NotExecuted::Dropped),
        };
        Err(refusal.into())
    }

    /// A device of a change that is executed now.
    fn build_device_change(
        &self,
        kind: OperationKind,
        sent: DeviceIds,
        record: Arc<DeviceRecord>,
        account: &Arc<str>,
        service_plan: &Arc<str>,
    ) -> DeviceChange {
        let scenario = scenario::match_device(kind, &sent).map(|hit| hit.scenario);
        let before = record.record_execution();
        let fate = match scenario {
            Some(scenario) => scenario.device_outcome().unwrap_or(DeviceOutcome::PLAIN),
            None => self.seeded_faults.device_outcome(record.rng_key, before),
        };
        record.attributes().account = Some(Arc::clone(account));
        // Of any other device, whoever looked before the change would have seen that it is not.
        if fate.on_plan_before && record.attributes().is_preloaded {
            record.set_plan(service_plan);
        }
        DeviceChange::new(sent, record, fate, scenario.map(|scenario| scenario.name))
    }

    fn record_not_executed(&self, request: &ChangeRequest, why: &NotExecuted) {
        let mut ledger = self.ledger();
        if matches!(why, NotExecuted::Dropped) {
            // It has no answer that the layer of answers could count.
            ledger.count_rejection(why.ledger_reason());
        }
        ledger.record_not_executed(ledger::NotExecutedEntry {
            received_at_ms: self.now_ms(),
            kind: request.operation.name(),
            reason: why.ledger_reason(),
            account: request.account.clone(),
            service_plan: request.service_plan.clone(),
            devices: request.devices.len(),
            first_device: request.devices.first().cloned(),
        });
    }
}
