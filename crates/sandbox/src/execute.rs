//! Executes a change, or rejects it.
//!
//! All checks precede the entry in the ledger, which is the execution. Everything later affects
//! only the response.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{
    auth::RequestCredentials,
    callback::{
        barrier::EarlyCallbackBarrier,
        delivery::{self, DeliveryJob},
    },
    device_outcome::{CallbackTiming, DeviceOutcome},
    errors::ErrorResponse,
    identifiers::DeviceIds,
    ledger::entries::{
        CallbackCounts, DeviceChange, ExecutedChange, NotExecutedEntry, content_hash,
    },
    operations::operation::{ChangeRequest, Operation},
    platform::Platform,
    request_outcome::{AcceptedChange, NotExecuted, NotExecutedCause, ResponseKind},
    scenario::{
        definition::ScenarioEffect,
        identifiers::{ScenarioMatch, match_device, match_devices},
    },
};

/// Executes the changes of one request.
pub(crate) struct Executor<'p> {
    pub(crate) platform: &'p Arc<Platform>,
    pub(crate) operation: &'static Operation,
    pub(crate) credentials: &'p RequestCredentials,
}

impl Executor<'_> {
    /// Executes a change. Returns its request ID when the response is due. The callbacks follow
    /// even if the caller is gone.
    pub(crate) async fn execute(
        &self,
        request: ChangeRequest,
    ) -> Result<AcceptedChange, NotExecuted> {
        let platform = self.platform;
        if platform.stop.is_cancelled() {
            return Err(ErrorResponse::stopping().into());
        }
        let received_at = Instant::now();
        let (response_kind, account) = self
            .admit(&request)
            .inspect_err(|not_executed| self.record_not_executed(&request, not_executed))?;
        let response_delay = match response_kind {
            ResponseKind::Slow => platform.settings.slow_response_delay,
            _ => platform.settings.response_delay,
        };
        let respond_at = received_at + response_delay;
        let job = self.record_executed(request, account, response_kind, respond_at);
        let request_id = job.change.request_id.clone();
        let barrier = Arc::clone(&job.barrier);
        tracing::debug!(request_id, devices = job.devices.len(), "change executed");
        delivery::start(platform, job);
        let response_due = async {
            barrier.wait().await;
            sleep_until(respond_at).await;
        };
        let waited = platform.abort.run_until_cancelled(response_due).await;
        waited.ok_or_else(ErrorResponse::stopping)?;
        Ok(AcceptedChange { request_id, response_kind })
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
        let change = Arc::new(ExecutedChange {
            // Not derived from the seed: ThingSpace never reuses a request ID, and a gateway's
            // journal may outlive the sandbox.
            request_id: Uuid::new_v4().to_string(),
            account,
            operation: self.operation,
            content_hash: content_hash(self.operation, &service_plan, &devices),
            service_plan,
            received_at_ms: platform.clock.unix_ms(),
            response_kind,
            callbacks: CallbackCounts::default(),
        });
        let mut ledger = platform.ledger.lock();
        ledger.record_executed(Arc::clone(&change), Arc::clone(&devices));
        let is_early =
            |device: &&DeviceChange| device.planned_outcome.timing == CallbackTiming::Early;
        let barrier = EarlyCallbackBarrier::new(devices.iter().filter(is_early).count());
        let rng_key = devices.first().map_or(0, |device| device.record.rng_key);
        DeliveryJob {
            order: platform.seeded_faults.callback_order(rng_key, devices.len(), is_reversed),
            change,
            devices,
            respond_at,
            barrier: Arc::new(barrier),
        }
    }

    /// Runs all checks. Returns the response and the account of the request.
    fn admit(&self, request: &ChangeRequest) -> Result<(ResponseKind, Arc<str>), NotExecuted> {
        let account: Arc<str> = match &request.account {
            Some(account) => account.as_str().into(),
            None => {
                let only = self.platform.registrations.lock().only_account();
                only.map_err(|error| (self.operation.error_response)(error))?.into()
            }
        };
        let response_kind = self.choose_response(request)?;
        let ledger = self.platform.ledger.lock();
        ledger.check_capacity(request.devices.len())?;
        Ok((response_kind, account))
    }

    /// Chooses the response: by scenarios first, otherwise by the seed.
    fn choose_response(&self, request: &ChangeRequest) -> Result<ResponseKind, NotExecuted> {
        let hits = match_devices(self.operation, &request.devices);
        for hit in &hits {
            if let ScenarioEffect::NotExecuted(cause) = hit.scenario.effect {
                self.apply_cause(cause, hit)?;
            }
        }
        let (key, earlier_requests) = self.request_rng_key(request);
        let response_kind = hits.iter().find_map(|hit| match hit.scenario.effect {
            ScenarioEffect::Response(kind) => Some(kind),
            _ => None,
        });
        // Rates do not apply to a request with a scenario of its own.
        let of_request = |hit: &ScenarioMatch<'_>| hit.scenario.device_outcome().is_none();
        if hits.iter().any(of_request) {
            return Ok(response_kind.unwrap_or(ResponseKind::RequestId));
        }
        let seeded_faults = &self.platform.seeded_faults;
        seeded_faults.response(key, earlier_requests)
    }

    /// Returns the random key of the request's first device, and the number of earlier requests
    /// that began with it.
    fn request_rng_key(&self, request: &ChangeRequest) -> (u64, u64) {
        let Some(first) = request.devices.first() else {
            return (0, 0);
        };
        let identity = (self.operation.device_identity)(first);
        let mut devices = self.platform.devices.lock();
        let record = devices.find_or_create(first, identity);
        (record.rng_key, record.record_request())
    }

    /// Rejects a request unless its serial number has used up the scenario.
    fn apply_cause(
        &self,
        cause: NotExecutedCause,
        hit: &ScenarioMatch<'_>,
    ) -> Result<(), NotExecuted> {
        let platform = self.platform;
        let should_reject = |credential| {
            let mut one_shot = platform.one_shot.lock();
            one_shot.should_reject(hit.scenario.number, hit.identifier, credential)
        };
        let RequestCredentials { token, session } = self.credentials;
        let response = match cause {
            NotExecutedCause::Token(response) if should_reject(Some(token)) => {
                platform.auth.lock().stop_reissuing(token);
                response()
            }
            NotExecutedCause::Session(response) if should_reject(Some(session)) => response(),
            NotExecutedCause::Throttled(response) if should_reject(None) => response(),
            NotExecutedCause::Token(_)
            | NotExecutedCause::Session(_)
            | NotExecutedCause::Throttled(_) => return Ok(()),
            NotExecutedCause::PlatformRule(error) => (self.operation.error_response)(error()),
            NotExecutedCause::ServerError => ErrorResponse::server_error(),
            NotExecutedCause::Dropped => return Err(NotExecuted::Dropped),
        };
        Err(response.into())
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
            let earlier_changes = record.record_execution();
            let outcome = match scenario {
                Some(scenario) => scenario.device_outcome().unwrap_or(DeviceOutcome::PLAIN),
                None => {
                    let seeded_faults = &self.platform.seeded_faults;
                    seeded_faults.device_outcome(record.rng_key, earlier_changes)
                }
            };
            let mut attributes = record.attributes();
            attributes.account = Some(Arc::clone(account));
            // A lookup before the change showed the plan only for a preloaded device.
            if outcome.on_plan_before && attributes.is_preloaded {
                attributes.plan = Some(Arc::clone(service_plan));
            }
            drop(attributes);
            DeviceChange::new(sent, record, outcome, scenario.map(|scenario| scenario.name))
        };
        devices.into_iter().map(build).collect()
    }

    fn record_not_executed(&self, request: &ChangeRequest, not_executed: &NotExecuted) {
        let reason = not_executed.ledger_reason();
        let mut ledger = self.platform.ledger.lock();
        if matches!(not_executed, NotExecuted::Dropped) {
            // Without a response, the middleware cannot count it.
            ledger.count_rejection(reason);
        }
        ledger.record_not_executed(NotExecutedEntry {
            received_at_ms: self.platform.clock.unix_ms(),
            kind: self.operation.name,
            reason,
            account: request.account.clone(),
            service_plan: request.service_plan.clone(),
            devices: request.devices.len(),
            first_device: request.devices.first().cloned(),
        });
    }
}
