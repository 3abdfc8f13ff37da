//! Sends the callbacks of a change, one for each device.
//!
//! `settings::ResendPolicy` decides when a callback is sent again. The planned outcome of a device
//! may add an interim callback, a second copy or a delay. The result of a device takes effect when
//! its callback is due, whether or not it is sent.

use std::{sync::Arc, time::Duration};

use axum::http::header;
use futures_util::{
    future::BoxFuture,
    stream::{self, FuturesUnordered, StreamExt as _},
};
use reqwest::Response;
use tokio::time::{Instant, timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::{
    callback::body::{self, MAX_CALLBACK_COUNT},
    json_body::MAX_DEVICES_PER_REQUEST,
    ledger::entries::{CallbackAttempt, DeviceChange, DeviceStatus, ExecutedChange, increment},
    outcome::{
        CallbackCopies,
        CallbackFormat::{NoOpeningBrace, NoRequestId, Truncated},
        CallbackTiming, InterimCallback,
    },
    platform::Platform,
};

/// Maximum time that a response waits for early callbacks.
const EARLY_CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a listener's response that is read, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

pub(crate) struct DeliveryJob {
    pub(crate) change: Arc<ExecutedChange>,
    pub(crate) devices: Arc<[DeviceChange]>,
    /// Indexes of the devices, in the order of their callbacks.
    pub(crate) order: Vec<usize>,
    pub(crate) respond_at: Instant,
}

/// Starts the delivery in the background. The returned tracker is empty when the first attempts of
/// all early callbacks have ended.
pub(crate) fn start(platform: &Arc<Platform>, job: DeliveryJob) -> TaskTracker {
    let early_callbacks = TaskTracker::new();
    early_callbacks.close();
    let with_token = |&index: &usize| {
        let timing = job.devices.get(index).map(|device| device.planned_outcome.timing);
        let is_early = timing == Some(CallbackTiming::Early);
        (index, is_early.then(|| early_callbacks.token()))
    };
    let (early, due): (Vec<_>, Vec<_>) =
        job.order.iter().map(with_token).partition(|(_, token)| token.is_some());
    let delivery = {
        let (platform, early_callbacks) = (Arc::clone(platform), early_callbacks.clone());
        async move {
            let deliver_due = async {
                wait_for_early(&early_callbacks).await;
                let until_response = job.respond_at.saturating_duration_since(Instant::now());
                let delay = until_response + platform.settings.callback_delay;
                if platform.sleep_unless_stopped(delay).await {
                    deliver_all(&platform, &job, due).await;
                }
            };
            tokio::join!(deliver_all(&platform, &job, early), deliver_due);
            platform.ledger.lock().counts.devices_pending -= job.devices.len();
        }
    };
    platform.deliveries.spawn(platform.abort.clone().run_until_cancelled_owned(delivery));
    early_callbacks
}

/// Waits for the early callbacks of a change, for a limited time.
pub(crate) async fn wait_for_early(early_callbacks: &TaskTracker) {
    let _ = timeout(EARLY_CALLBACK_TIMEOUT, early_callbacks.wait()).await;
}

/// Delivers the callbacks of all devices at the same time, so that none waits for the resends of
/// another. The permits of the platform limit the requests in flight.
async fn deliver_all(
    platform: &Platform,
    job: &DeliveryJob,
    devices: Vec<(usize, Option<TaskTrackerToken>)>,
) {
    stream::iter(devices)
        .for_each_concurrent(MAX_DEVICES_PER_REQUEST, async |(index, token)| {
            if let Some(device) = job.devices.get(index) {
                DeviceDelivery { platform, change: &job.change, device }.deliver(token).await;
            }
        })
        .await;
}

struct DeviceDelivery<'c> {
    platform: &'c Platform,
    change: &'c ExecutedChange,
    device: &'c DeviceChange,
}

/// The result of an attempt, or of all attempts.
enum SendOutcome<'c> {
    Acknowledged,
    Rejected,
    /// No response within the timeout. Contains the rest of the attempt.
    TimedOut(BoxFuture<'c, SendOutcome<'c>>),
    NoListener,
    Stopped,
}

impl DeviceDelivery<'_> {
    /// Delivers the callbacks. Drops the token of an early one when its first attempt has ended.
    async fn deliver(&self, mut token: Option<TaskTrackerToken>) {
        let Self { platform, change, device } = *self;
        let planned = &device.planned_outcome;
        if platform.stop.is_cancelled() {
            return;
        }
        if let Some(interim) = planned.interim {
            self.send_until_acknowledged(Some(interim), &mut token).await;
            if !platform.sleep_unless_stopped(platform.settings.interim_for).await {
                return;
            }
        }
        // Makes the result visible to lookups.
        let counts = &change.callbacks;
        let status = if planned.fault.is_some() {
            increment(&counts.failed_devices);
            DeviceStatus::Failed
        } else {
            device.record.state.lock().plan = Some(Arc::clone(&change.service_plan));
            DeviceStatus::Succeeded
        };
        device.progress.lock().status = status;
        match planned.timing {
            CallbackTiming::Never => {
                increment(&counts.lost);
                return;
            }
            CallbackTiming::Late => {
                if !platform.sleep_unless_stopped(platform.settings.late_delay).await {
                    return;
                }
            }
            CallbackTiming::Due | CallbackTiming::Early => {}
        }
        match self.send_until_acknowledged(None, &mut token).await {
            SendOutcome::Acknowledged => increment(&counts.acknowledged),
            SendOutcome::NoListener => increment(&counts.no_listener),
            SendOutcome::Rejected => increment(&counts.gave_up),
            SendOutcome::TimedOut(_) | SendOutcome::Stopped => {}
        }
    }

    /// Sends a callback until the listener acknowledges it, up to the maximum number of attempts.
    /// Returns when no attempt is in flight.
    async fn send_until_acknowledged(
        &self,
        interim: Option<InterimCallback>,
        token: &mut Option<TaskTrackerToken>,
    ) -> SendOutcome<'_> {
        let copies = match interim {
            Some(_) => CallbackCopies::One,
            None => self.device.planned_outcome.copies,
        };
        let mut in_flight = FuturesUnordered::new();
        let mut attempts = 1;
        in_flight.push(self.attempt(interim, 1));
        if copies == CallbackCopies::TwoConcurrent {
            attempts = 2;
            increment(&self.change.callbacks.duplicates);
            in_flight.push(self.attempt(None, 2));
        }
        let resend = self.platform.settings.resend_timing();
        let mut outcome = SendOutcome::Rejected;
        while let Some(ended) = in_flight.next().await {
            *token = None;
            let is_open = matches!(outcome, SendOutcome::Rejected);
            let may_resend = is_open && attempts < resend.max_attempts;
            match ended {
                SendOutcome::Acknowledged => {
                    if copies == CallbackCopies::TwoSequential
                        && is_open
                        && attempts < MAX_CALLBACK_COUNT
                    {
                        attempts += 1;
                        increment(&self.change.callbacks.duplicates);
                        in_flight.push(self.attempt(None, attempts));
                    }
                    outcome = SendOutcome::Acknowledged;
                }
                SendOutcome::Rejected if may_resend && in_flight.is_empty() => {
                    if !self.platform.sleep_unless_stopped(resend.resend_delay).await {
                        return SendOutcome::Stopped;
                    }
                    attempts += 1;
                    in_flight.push(self.attempt(interim, attempts));
                }
                SendOutcome::TimedOut(rest) => {
                    in_flight.push(rest);
                    if may_resend {
                        attempts += 1;
                        in_flight.push(self.attempt(interim, attempts));
                    }
                }
                SendOutcome::NoListener | SendOutcome::Stopped if is_open => outcome = ended,
                SendOutcome::Rejected | SendOutcome::NoListener | SendOutcome::Stopped => {}
            }
        }
        outcome
    }

    /// Sends a callback when it has a permit. Permits are granted in the order of the requests for
    /// them. The timeout starts with the permit.
    fn attempt(
        &self,
        interim: Option<InterimCallback>,
        count: u32,
    ) -> BoxFuture<'_, SendOutcome<'_>> {
        Box::pin(async move {
            let permit = self.platform.send_permits.acquire();
            let Some(Ok(permit)) = self.platform.stop.run_until_cancelled(permit).await else {
                return SendOutcome::Stopped;
            };
            let mut send: BoxFuture<'_, SendOutcome<'_>> = Box::pin(async move {
                let outcome = self.send(interim, count).await;
                drop(permit);
                outcome
            });
            let resend = self.platform.settings.resend_timing();
            let Some(callback_timeout) = resend.callback_timeout else {
                return send.await;
            };
            match timeout(callback_timeout, &mut send).await {
                Ok(outcome) => outcome,
                Err(_) => SendOutcome::TimedOut(send),
            }
        })
    }

    async fn send(&self, interim: Option<InterimCallback>, count: u32) -> SendOutcome<'_> {
        let Self { platform, change, device } = *self;
        // Each attempt uses the latest registration.
        let service = change.operation.callback_service;
        let Some(listener) = platform.find_listener(&change.account, service) else {
            return SendOutcome::NoListener;
        };
        let message = match (interim, device.planned_outcome.format) {
            (Some(InterimCallback::OnHold), _) => "on_hold",
            (Some(InterimCallback::Warning), _) => "warning",
            (None, Truncated | NoOpeningBrace | NoRequestId) => "malformed",
            (None, _) => "final",
        };
        let body = body::encode(change, device, interim, &listener, count);
        increment(&change.callbacks.sent);
        let attempt_index = {
            let attempts = &mut device.progress.lock().attempts;
            let response_status = None;
            attempts.push(CallbackAttempt { message, callback_count: count, response_status });
            attempts.len() - 1
        };
        let request = platform.client.post(listener.url).body(body);
        let response = request.header(header::CONTENT_TYPE, "application/json").send().await;
        let Ok(response) = response else {
            return SendOutcome::Rejected;
        };
        let status = response.status();
        if let Some(attempt) = device.progress.lock().attempts.get_mut(attempt_index) {
            attempt.response_status = Some(status.as_u16());
        }
        drain(response).await;
        if status.is_success() { SendOutcome::Acknowledged } else { SendOutcome::Rejected }
    }
}

/// Reads a response to its end, so that its connection can be reused.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_RESPONSE {
            return;
        }
    }
}
