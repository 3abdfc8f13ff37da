//! Sends the callbacks: one per device, again when nobody takes it.
//!
//! How often and how soon is a policy, because the pages and what was measured
//! disagree: `settings::Resend`. A device's fate may add a callback that is not
//! the end, send one early, late, twice or never. What a change came to holds
//! from the moment its callback is due, sent or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::header;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::callback::body::{self as callback_body, MAX_CALLBACK_COUNT};
use crate::device_outcome::{CallbackCopies, CallbackTiming, DeviceResult, InterimCallback};
use crate::json_body::MAX_DEVICES_PER_REQUEST;
use crate::ledger::{DeviceChange, DeviceStatus, ExecutedChange, increment};
use crate::platform::{EarlyCallbackBarrier, Platform};

/// When a send is over, whatever the listener does.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How much of a listener's answer is read, to keep the connection usable.
const MAX_ANSWER: usize = 64 * 1024;

/// A change whose callbacks are to be sent.
pub(crate) struct DeliveryJob {
    pub(crate) change: Arc<ExecutedChange>,
    pub(crate) devices: Arc<[DeviceChange]>,
    /// The order in which the devices are told.
    pub(crate) order: Vec<usize>,
    pub(crate) respond_at: Instant,
    /// Opens when the early callbacks are out.
    pub(crate) barrier: Arc<EarlyCallbackBarrier>,
}

/// The client that callbacks are sent with.
pub(crate) fn client(concurrency: usize) -> reqwest::Result<reqwest::Client> {
    // Without any authorities on the system https listeners are out of reach; most are plain http.
    builder(concurrency)
        .build()
        .or_else(|_| builder(concurrency).tls_certs_only([]).build())
}

fn builder(concurrency: usize) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent("Verizon's callback service")
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(concurrency)
        .timeout(SEND_LIMIT)
}

/// Sends all callbacks of a change. All its devices may be under way at a time:
/// one that waits for a resend holds up no other.
pub(crate) async fn deliver_callbacks(platform: Arc<Platform>, job: DeliveryJob) {
    let (early, due) = job.partition_early();
    let early = deliver_all(&platform, &job, early);
    let due = async {
        job.barrier.wait().await;
        let start = job.respond_at.max(Instant::now()) + platform.settings.callback_delay;
        if platform.sleep_until_unless_stopped(start).await {
            deliver_all(&platform, &job, due).await;
        }
    };
    tokio::join!(early, due);
    platform.ledger().finish_devices(job.devices.len());
}

impl DeliveryJob {
    /// Who is told before the answer, and who after it.
    fn partition_early(&self) -> (Vec<usize>, Vec<usize>) {
        let is_early = |index: &usize| {
            let subject = self.devices.get(*index);
            subject.is_some_and(|subject| subject.planned_outcome.timing == CallbackTiming::Early)
        };
        self.order.iter().partition(|index| is_early(index))
    }
}

async fn deliver_all(platform: &Platform, job: &DeliveryJob, indexes: Vec<usize>) {
    stream::iter(indexes)
        .for_each_concurrent(MAX_DEVICES_PER_REQUEST, |index| {
            deliver_device(platform, job, index)
        })
        .await;
}

async fn deliver_device(platform: &Platform, job: &DeliveryJob, index: usize) {
    let Some(subject) = job.devices.get(index) else {
        return;
    };
    let callback = DeviceDelivery {
        platform,
        change: &job.change,
        device: subject,
        barrier: &job.barrier,
        barrier_notified: AtomicBool::new(subject.planned_outcome.timing != CallbackTiming::Early),
    };
    callback.deliver().await;
}

/// The callbacks about one device.
struct DeviceDelivery<'c> {
    platform: &'c Platform,
    change: &'c ExecutedChange,
    device: &'c DeviceChange,
    barrier: &'c EarlyCallbackBarrier,
    /// Whether the gate knows already that this one is out.
    barrier_notified: AtomicBool,
}

/// How a send ended.
enum SendOutcome<'c> {
    Acknowledged,
    Rejected,
    /// No answer within the platform's patience; this is the rest of the send.
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
            if !self
                .platform
                .sleep_unless_stopped(settings.interim_delay)
                .await
            {
                return;
            }
        }
        self.apply_result();
        match self.device.planned_outcome.timing {
            CallbackTiming::Never => {
                increment(&self.change.callbacks.lost);
                return;
            }
            CallbackTiming::Late => {
                if !self
                    .platform
                    .sleep_unless_stopped(settings.late_delay)
                    .await
                {
                    return;
                }
            }
            CallbackTiming::Due | CallbackTiming::Early => {}
        }
        let tally = &self.change.callbacks;
        match self.send_until_acknowledged(None).await {
            SendOutcome::Acknowledged => increment(&tally.acknowledged),
            SendOutcome::NoListener => increment(&tally.no_listener),
            SendOutcome::Rejected => increment(&tally.gave_up),
            SendOutcome::TimedOut(_) | SendOutcome::Stopped => {}
        }
    }

    /// From now on the platform knows what became of the device.
    fn apply_result(&self) {
        let outcome = match self.device.planned_outcome.result {
            DeviceResult::Succeeded => {
                self.device.record.set_plan(&self.change.service_plan);
                DeviceStatus::Succeeded
            }
            DeviceResult::Failed(_) => {
                increment(&self.change.callbacks.failed_devices);
                DeviceStatus::Failed
            }
        };
        self.device.progress().status = outcome;
    }

    /// Sends until somebody takes it, and waits for every copy under way.
    async fn send_until_acknowledged(&self, interim: Option<InterimCallback>) -> SendOutcome<'_> {
        let copies = match interim {
            Some(_) => CallbackCopies::One,
            None => self.device.planned_outcome.copies,
        };
        let mut in_flight = FuturesUnordered::new();
        let mut sends = 1;
        in_flight.push(self.attempt(interim, 1));
        if copies == CallbackCopies::TwoConcurrent {
            sends = 2;
            in_flight.push(self.duplicate(2));
        }
        let policy = self.platform.resend_timing;
        let mut outcome = SendOutcome::Rejected;
        while let Some(sent) = in_flight.next().await {
            if !self.barrier_notified.swap(true, Ordering::Relaxed) {
                self.barrier.complete_one();
            }
            let more = sends < policy.max_attempts && matches!(outcome, SendOutcome::Rejected);
            match sent {
                SendOutcome::Acknowledged => {
                    let first = matches!(outcome, SendOutcome::Rejected);
                    if copies == CallbackCopies::TwoSequential
                        && first
                        && sends < MAX_CALLBACK_COUNT
                    {
                        sends += 1;
                        in_flight.push(self.duplicate(sends));
                    }
                    outcome = SendOutcome::Acknowledged;
                }
                SendOutcome::Rejected if more && in_flight.is_empty() => {
                    if !self
                        .platform
                        .sleep_unless_stopped(policy.resend_delay)
                        .await
                    {
                        return SendOutcome::Stopped;
                    }
                    sends += 1;
                    in_flight.push(self.attempt(interim, sends));
                }
                SendOutcome::Rejected => {}
                SendOutcome::TimedOut(rest) => {
                    in_flight.push(rest);
                    if more {
                        sends += 1;
                        in_flight.push(self.attempt(interim, sends));
                    }
                }
                SendOutcome::NoListener | SendOutcome::Stopped => {
                    if matches!(outcome, SendOutcome::Rejected) {
                        outcome = sent;
                    }
                }
            }
        }
        outcome
    }

    /// A second copy that nobody asked for.
    fn duplicate(&self, count: u32) -> BoxFuture<'_, SendOutcome<'_>> {
        increment(&self.change.callbacks.duplicates);
        self.attempt(None, count)
    }

    /// One send, when its turn has come. Turns are given in the order in which
    /// they were asked for, and the patience begins with the turn.
    fn attempt(
        &self,
        interim: Option<InterimCallback>,
        count: u32,
    ) -> BoxFuture<'_, SendOutcome<'_>> {
        Box::pin(async move {
            let turn = self.platform.send_permits.acquire();
            let Some(Ok(turn)) = self.platform.stop.run_until_cancelled(turn).await else {
                return SendOutcome::Stopped;
            };
            let mut send: BoxFuture<'_, SendOutcome<'_>> = Box::pin(async move {
                let sent = self.send(interim, count).await;
                drop(turn);
                sent
            });
            let Some(patience) = self.platform.resend_timing.callback_timeout else {
                return send.await;
            };
            match timeout(patience, &mut send).await {
                Ok(sent) => sent,
                Err(_) => SendOutcome::TimedOut(send),
            }
        })
    }

    async fn send(&self, interim: Option<InterimCallback>, count: u32) -> SendOutcome<'_> {
        // Looked up for each send: a new registration takes effect at once.
        let service = self.change.operation.callback_service();
        let Some(listener) = self.platform.find_listener(&self.change.account, service) else {
            return SendOutcome::NoListener;
        };
        let body = callback_body::encode(self.change, self.device, interim, &listener, count);
        let Ok(body) = body else {
            return SendOutcome::Rejected;
        };
        increment(&self.change.callbacks.sent);
        let place = self.device.start_attempt(interim.is_some(), count);
        let post = self.platform.client.post(listener.url);
        let answer = post
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await;
        let Ok(answer) = answer else {
            return SendOutcome::Rejected;
        };
        let status = answer.status();
        self.device.finish_attempt(place, status.as_u16());
        read_off(answer).await;
        if status.is_success() {
            SendOutcome::Acknowledged
        } else {
            SendOutcome::Rejected
        }
    }
}

/// Reads an answer to its end, so that its connection can be used again.
async fn read_off(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER {
            return;
        }
    }
}
