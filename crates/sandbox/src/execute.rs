//! Executes a change, or rejects it.
//!
//! All checks precede the entry in the ledger, which is the execution. Everything later affects
//! only the response.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{
    auth::RequestCredentials,
    callback::delivery::{self, DeliveryJob},
    clock::unix_ms,
    errors::ErrorResponse,
    identifiers::DeviceIds,
    ledger::entries::{
        CallbackCounts, DeviceChange, ExecutedChange, NotExecutedEntry, content_hash,
    },
    operations::operation::{ChangeRequest, Operation},
    outcome::{DeviceOutcome, NotExecutedCause, ResponseKind},
    platform::Platform,
    scenario::{
        identifiers::{ScenarioMatch, match_device, match_devices},
        table::ScenarioEffect,
    },
    seeded_faults,
};

/// Maximum number of devices with outstanding callbacks.
const MAX_PENDING: usize = 500_000;

pub(crate) struct Executor<'p> {
    pub(crate) platform: &'p Arc<Platform>,
    pub(crate) operation: &'static Operation,
    pub(crate) credentials: &'p RequestCredentials,
}

impl Executor<'_> {
    /// Executes a change. Returns when the response is due. The callbacks follow even if the caller
    /// is gone.
    pub(crate) async fn execute(
        &self,
        request: ChangeRequest,
    ) -> Result<Arc<ExecutedChange>, ErrorResponse> {
        let platform = self.platform;
        if platform.stop.is_cancelled() {
            return Err(ErrorResponse::STOPPING);
        }
        let received_at = Instant::now();
        let admitted = self.admit(&request).inspect_err(|response| {
            platform.ledger.lock().record_not_executed(NotExecutedEntry {
                received_at_ms: unix_ms(),
                kind: self.operation.name,
                reason: response.reason,
                account: request.account.clone(),
                service_plan: request.service_plan.clone(),
                devices: request.devices.len(),
                first_device: request.devices.first().cloned(),
            });
        });
        let (response_kind, account) = admitted?;
        let response_delay = match response_kind {
            ResponseKind::Slow => platform.settings.slow_answer,
            _ => platform.settings.answer_delay,
        };
        let respond_at = received_at + response_delay;
        let job = self.record_executed(request, account, response_kind, respond_at);
        let change = Arc::clone(&job.change);
        tracing::debug!(
            request_id = change.request_id,
            devices = change.devices,
            "change executed"
        );
        let early_callbacks = delivery::start(platform, job);
        let response_due = async {
            delivery::wait_for_early(&early_callbacks).await;
            sleep_until(respond_at).await;
        };
        let waited = platform.abort.run_until_cancelled(response_due).await;
        waited.map(|()| change).ok_or(ErrorResponse::STOPPING)
    }

    /// Records the change in the ledger. Returns its callbacks.
    fn record_executed(
        &self,
        request: ChangeRequest,
        account: Arc<str>,
        response_kind: ResponseKind,
        respond_at: Instant,
    ) -> DeliveryJob {
        let platform = self.platform;
        let is_reversed = match_devices(self.operation, &request.devices)
            .iter()
            .any(|hit| matches!(hit.scenario.effect, ScenarioEffect::ReversedOrder));
        let service_plan: Arc<str> = request.service_plan.into();
        let devices = self.build_device_changes(request.devices, &account, &service_plan);
        let rng_key = devices.first().map_or(0, |device| device.record.rng_key);
        let order =
            seeded_faults::callback_order(&platform.settings, rng_key, devices.len(), is_reversed);
        let change = Arc::new(ExecutedChange {
            // Not derived from the seed: ThingSpace never reuses a request ID, and a gateway's
            // journal may outlive the sandbox.
            request_id: Uuid::new_v4().to_string(),
            account,
            operation: self.operation,
            content_hash: content_hash(self.operation, &service_plan, &devices),
            service_plan,
            devices: devices.len(),
            received_at_ms: unix_ms(),
            response_kind,
            callbacks: CallbackCounts::default(),
        });
        platform.ledger.lock().record_executed(Arc::clone(&change), Arc::clone(&devices));
        DeliveryJob { change, devices, order, respond_at }
    }

    /// Runs all checks. Returns the response and the account of the request.
    fn admit(&self, request: &ChangeRequest) -> Result<(ResponseKind, Arc<str>), ErrorResponse> {
        let account = match &request.account {
            Some(account) => account.clone(),
            None => {
                let only_account = self.platform.registrations.lock().only_account();
                only_account.map_err(self.operation.error_response)?
            }
        };
        let response_kind = self.choose_response(request)?;
        let pending = self.platform.ledger.lock().counts.devices_pending;
        if pending + request.devices.len() > MAX_PENDING {
            return Err(ErrorResponse::THROTTLED);
        }
        Ok((response_kind, account.into()))
    }

    /// Chooses the response: by scenarios first, otherwise by the seed.
    fn choose_response(&self, request: &ChangeRequest) -> Result<ResponseKind, ErrorResponse> {
        let hits = match_devices(self.operation, &request.devices);
        for hit in &hits {
            if let ScenarioEffect::NotExecuted(cause) = &hit.scenario.effect {
                self.apply_cause(cause, hit)?;
            }
        }
        let Some(first) = request.devices.first() else {
            return Ok(ResponseKind::RequestId);
        };
        let identity = (self.operation.device_identity)(first);
        let record = self.platform.devices.lock().find_or_create(first, identity);
        let mut state = record.state.lock();
        let earlier_requests = state.request_count;
        state.request_count += 1;
        let response_kind = hits.iter().find_map(|hit| match hit.scenario.effect {
            ScenarioEffect::Response(kind) => Some(kind),
            _ => None,
        });
        // Rates do not apply to a request with a scenario of its own.
        if hits.iter().any(|hit| hit.scenario.device_outcome().is_none()) {
            return Ok(response_kind.unwrap_or(ResponseKind::RequestId));
        }
        seeded_faults::decide_response(&self.platform.settings, record.rng_key, earlier_requests)
    }

    /// Rejects a request unless its serial number has used up the scenario.
    fn apply_cause(
        &self,
        cause: &NotExecutedCause,
        hit: &ScenarioMatch<'_>,
    ) -> Result<(), ErrorResponse> {
        let platform = self.platform;
        let should_reject = |credential| {
            let mut one_shot = platform.one_shot.lock();
            one_shot.should_reject(hit.scenario.number, hit.identifier, credential)
        };
        let RequestCredentials { token, session } = self.credentials;
        let (response, is_rejected) = match cause {
            NotExecutedCause::Token(response) => (response, should_reject(Some(token))),
            NotExecutedCause::Session(response) => (response, should_reject(Some(session))),
            NotExecutedCause::First(response) => (response, should_reject(None)),
            NotExecutedCause::Always(response) => (response, true),
            NotExecutedCause::PlatformRule(fault) => {
                return Err((self.operation.error_response)((*fault).clone()));
            }
        };
        if !is_rejected {
            return Ok(());
        }
        if matches!(cause, NotExecutedCause::Token(_)) {
            platform.auth.lock().stop_reissuing(token);
        }
        Err(response.clone())
    }

    fn build_device_changes(
        &self,
        devices: Vec<DeviceIds>,
        account: &Arc<str>,
        service_plan: &Arc<str>,
    ) -> Arc<[DeviceChange]> {
        let mut registry = self.platform.devices.lock();
        let build = |sent: DeviceIds| {
            let identity = (self.operation.device_identity)(&sent);
            let record = registry.find_or_create(&sent, identity);
            let scenario = match_device(self.operation, &sent).map(|hit| hit.scenario);
            let mut state = record.state.lock();
            let planned_outcome = match scenario {
                Some(scenario) => scenario.device_outcome().unwrap_or(DeviceOutcome::PLAIN),
                None => {
                    let settings = &self.platform.settings;
                    seeded_faults::device_outcome(settings, record.rng_key, state.execution_count)
                }
            };
            state.execution_count += 1;
            state.account = Some(Arc::clone(account));
            // A lookup before the change showed the plan only for a preloaded device.
            if planned_outcome.on_plan_before && state.is_preloaded {
                state.plan = Some(Arc::clone(service_plan));
            }
            drop(state);
            DeviceChange {
                sent,
                record,
                planned_outcome,
                scenario: scenario.map(|scenario| scenario.name),
                progress: Mutex::default(),
            }
        };
        devices.into_iter().map(build).collect()
    }
}
