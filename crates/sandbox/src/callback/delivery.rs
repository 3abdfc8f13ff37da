//! Sends the callbacks of a change, one for each device.
//!
//! `settings::ResendPolicy` decides when a callback is sent again. The planned outcome of a device
//! may add an interim callback, a second copy or a delay. The result of a device takes effect when
//! its callback is due, whether or not it is sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::header;
use futures_util::{
    future::BoxFuture,
    stream::{self, FuturesUnordered, StreamExt as _},
};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::{
    callback::{
        barrier::EarlyCallbackBarrier,
        body::{self, MAX_CALLBACK_COUNT},
    },
    device_outcome::{CallbackCopies, CallbackTiming, DeviceResult, InterimCallback},
    json_body::MAX_DEVICES_PER_REQUEST,
    ledger::entries::{DeviceChange, DeviceStatus, ExecutedChange, increment},
    platform::Platform,
};

/// Maximum length of a listener's response that is read, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// The callbacks of a change.
pub(crate) struct DeliveryJob {
    pub(crate) change: Arc<ExecutedChange>,
    pub(crate) devices: Arc<[DeviceChange]>,
    /// Indexes of the devices, in the order of their callbacks.
    pub(crate) order: Vec<usize>,
    pub(crate) respond_at: Instant,
    /// Opens when the first attempts of all early callbacks have ended.
    pub(crate) barrier: Arc<EarlyCallbackBarrier>,
}

/// Starts the delivery in the background.
pub(crate) fn start(platform: &Arc<Platform>, job: DeliveryJob) {
    let abort = platform.abort.clone();
    let delivery = deliver_callbacks(Arc::clone(platform), job);
    platform.deliveries.spawn(async move { abort.run_until_cancelled(delivery).await });
}

async fn deliver_callbacks(platform: Arc<Platform>, job: DeliveryJob) {
    let is_early = |index: &usize| {
        let device = job.devices.get(*index);
        device.is_some_and(|device| device.planned_outcome.timing == CallbackTiming::Early)
    };
    let (early, due): (Vec<usize>, Vec<usize>) =
        job.order.iter().partition(|index| is_early(index));
    let deliver_early = deliver_all(&platform, &job, early);
    let deliver_due = async {
        job.barrier.wait().await;
        let start = job.respond_at.max(Instant::now()) + platform.settings.callback_delay;
        if platform.sleep_until_unless_stopped(start).await {
            deliver_all(&platform, &job, due).await;
        }
    };
    tokio::join!(deliver_early, deliver_due);
    platform.ledger.lock().finish_devices(job.devices.len());
}

/// Delivers the callbacks of all devices at the same time, so that none waits for the resends of
/// another. The permits of the platform limit the requests in flight.
async fn deliver_all(platform: &Platform, job: &DeliveryJob, indexes: Vec<usize>) {
    stream::iter(indexes)
        .filter_map(async |index| job.devices.get(index))
        .for_each_concurrent(MAX_DEVICES_PER_REQUEST, async |device| {
            let is_early = device.planned_outcome.timing == CallbackTiming::Early;
            let delivery = DeviceDelivery {
                platform,
                change: &job.change,
                device,
                barrier: &job.barrier,
                barrier_notified: AtomicBool::new(!is_early),
            };
            delivery.deliver().await;
        })
        .await;
}

/// The callbacks of one device.
struct DeviceDelivery<'c> {
    platform: &'c Platform,
    change: &'c ExecutedChange,
    device: &'c DeviceChange,
    barrier: &'c EarlyCallbackBarrier,
    barrier_notified: AtomicBool,
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
    async fn deliver(&self) {
        let settings = &self.platform.settings;
        if self.platform.stop.is_cancelled() {
            return;
        }
        if let Some(interim) = self.device.planned_outcome.interim {
            self.send_until_acknowledged(Some(interim)).await;
            let delay = settings.interim_delay;
            if !self.platform.sleep_unless_stopped(delay).await {
                return;
            }
        }
        self.apply_result();
        let counts = &self.change.callbacks;
        match self.device.planned_outcome.timing {
            CallbackTiming::Never => {
                increment(&counts.lost);
                return;
            }
            CallbackTiming::Late => {
                let delay = settings.late_delay;
                if !self.platform.sleep_unless_stopped(delay).await {
                    return;
                }
            }
            CallbackTiming::Due | CallbackTiming::Early => {}
        }
        match self.send_until_acknowledged(None).await {
            SendOutcome::Acknowledged => increment(&counts.acknowledged),
            SendOutcome::NoListener => increment(&counts.no_listener),
            SendOutcome::Rejected => increment(&counts.gave_up),
            SendOutcome::TimedOut(_) | SendOutcome::Stopped => {}
        }
    }

    /// Makes the result visible to lookups.
    fn apply_result(&self) {
        let status = match self.device.planned_outcome.result {
            DeviceResult::Succeeded => {
                self.device.record.set_plan(&self.change.service_plan);
                DeviceStatus::Succeeded
            }
            DeviceResult::Failed(_) => {
                increment(&self.change.callbacks.failed_devices);
                DeviceStatus::Failed
            }
        };
        self.device.progress().status = status;
    }

    /// Sends a callback until the listener acknowledges it, up to the maximum number of attempts.
    /// Returns when no attempt is in flight.
    async fn send_until_acknowledged(&self, interim: Option<InterimCallback>) -> SendOutcome<'_> {
        let copies = match interim {
            Some(_) => CallbackCopies::One,
            None => self.device.planned_outcome.copies,
        };
        let mut in_flight = FuturesUnordered::new();
        let mut attempts = 1;
        in_flight.push(self.attempt(interim, 1));
        if copies == CallbackCopies::TwoConcurrent {
            attempts = 2;
            in_flight.push(self.duplicate(2));
        }
        let resend = self.platform.resend_timing;
        let mut outcome = SendOutcome::Rejected;
        while let Some(ended) = in_flight.next().await {
            if !self.barrier_notified.swap(true, Ordering::Relaxed) {
                self.barrier.complete_one();
            }
            let is_open = matches!(outcome, SendOutcome::Rejected);
            let may_resend = is_open && attempts < resend.max_attempts;
            match ended {
                SendOutcome::Acknowledged => {
                    if copies == CallbackCopies::TwoSequential
                        && is_open
                        && attempts < MAX_CALLBACK_COUNT
                    {
                        attempts += 1;
                        in_flight.push(self.duplicate(attempts));
                    }
                    outcome = SendOutcome::Acknowledged;
                }
                SendOutcome::Rejected if may_resend && in_flight.is_empty() => {
                    let delay = resend.resend_delay;
                    if !self.platform.sleep_unless_stopped(delay).await {
                        return SendOutcome::Stopped;
                    }
                    attempts += 1;
                    in_flight.push(self.attempt(interim, attempts));
                }
                SendOutcome::Rejected => {}
                SendOutcome::TimedOut(rest) => {
                    in_flight.push(rest);
                    if may_resend {
                        attempts += 1;
                        in_flight.push(self.attempt(interim, attempts));
                    }
                }
                SendOutcome::NoListener | SendOutcome::Stopped => {
                    if is_open {
                        outcome = ended;
                    }
                }
            }
        }
        outcome
    }

    /// Sends a second copy of the final callback.
    fn duplicate(&self, count: u32) -> BoxFuture<'_, SendOutcome<'_>> {
        increment(&self.change.callbacks.duplicates);
        self.attempt(None, count)
    }

    /// Sends a callback once it has a permit. Permits are granted in the order of the requests for
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
            let Some(callback_timeout) = self.platform.resend_timing.callback_timeout else {
                return send.await;
            };
            match timeout(callback_timeout, &mut send).await {
                Ok(outcome) => outcome,
                Err(_) => SendOutcome::TimedOut(send),
            }
        })
    }

    async fn send(&self, interim: Option<InterimCallback>, count: u32) -> SendOutcome<'_> {
        // Each attempt uses the latest registration.
        let service = self.change.operation.callback_service;
        let Some(listener) = self.platform.find_listener(&self.change.account, service) else {
            return SendOutcome::NoListener;
        };
        let body = body::encode(self.change, self.device, interim, &listener, count);
        increment(&self.change.callbacks.sent);
        let attempt = self.device.start_attempt(interim.is_some(), count);
        let request = self.platform.client.post(listener.url);
        let response =
            request.header(header::CONTENT_TYPE, "application/json").body(body).send().await;
        let Ok(response) = response else {
            return SendOutcome::Rejected;
        };
        let status = response.status();
        self.device.finish_attempt(attempt, status.as_u16());
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
