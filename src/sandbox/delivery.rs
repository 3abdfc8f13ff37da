//! Sending callbacks: one per device, again when nobody takes it.
//!
//! The pages say three more tries five minutes apart; measured was one more try
//! after about 1.3 seconds, and after 4 seconds without an answer a second copy
//! while the first was still under way. This follows the documented count on the
//! measured scale.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use reqwest::Response;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fate::{Copies, Fate};
use super::identifiers::Device;
use super::ledger::{Change, add};
use super::message::{self, MAX_SENDS};
use super::platform::Platform;

/// Devices of one change that may be between their first send and their last.
/// More than the sends in flight, so that those who wait for a resend do not
/// hold up the others.
const OPEN_DEVICES: usize = 1024;
/// When a send is over, whatever the listener does.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How much of a listener's answer is read, to keep the connection usable.
const MAX_ANSWER: usize = 64 * 1024;

/// A change whose callbacks are to be sent.
pub(super) struct Job {
    pub(super) change: Arc<Change>,
    pub(super) devices: Arc<[Device]>,
    pub(super) answered_at: Instant,
}

/// The client that callbacks are sent with.
pub(super) fn client(concurrency: usize) -> reqwest::Result<reqwest::Client> {
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

/// Sends all callbacks of a change.
pub(super) async fn run(platform: Arc<Platform>, job: Job) {
    let start = job.answered_at + platform.settings.callback_delay;
    let waited = platform.stop.run_until_cancelled(sleep_until(start)).await;
    if waited.is_some() {
        let order = platform.fates.order(job.change.ordinal, job.devices.len());
        stream::iter(order)
            .for_each_concurrent(OPEN_DEVICES, |index| tell(&platform, &job, index))
            .await;
    }
    platform.ledger().settled(job.devices.len());
}

async fn tell(platform: &Platform, job: &Job, index: usize) {
    if platform.stop.is_cancelled() {
        return;
    }
    if let Some(device) = job.devices.get(index) {
        let callback = Callback {
            platform,
            change: &job.change,
            device,
            fate: platform.fates.device(job.change.ordinal, index),
        };
        callback.deliver().await;
    }
}

/// The callback about one device.
struct Callback<'c> {
    platform: &'c Platform,
    change: &'c Change,
    device: &'c Device,
    fate: Fate,
}

/// How a send ended.
enum Outcome<'c> {
    Acknowledged,
    Refused,
    /// No answer within the platform's patience; this is the rest of the send.
    Slow(BoxFuture<'c, Outcome<'c>>),
    NoListener,
    Stopped,
}

impl Callback<'_> {
    async fn deliver(&self) {
        let tally = &self.change.callbacks;
        if self.fate.fault.is_some() {
            add(&tally.failed_devices);
        }
        match self.until_acknowledged().await {
            Outcome::Acknowledged => add(&tally.acknowledged),
            Outcome::NoListener => add(&tally.no_listener),
            Outcome::Refused => add(&tally.gave_up),
            Outcome::Slow(_) | Outcome::Stopped => {}
        }
    }

    /// Sends until somebody takes it, and waits for every copy under way.
    async fn until_acknowledged(&self) -> Outcome<'_> {
        let mut under_way = FuturesUnordered::new();
        let mut sends = 1;
        under_way.push(self.attempt(1));
        if self.fate.copies == Copies::TwoAtOnce {
            sends = 2;
            under_way.push(self.duplicate(2));
        }
        let mut end = Outcome::Refused;
        while let Some(outcome) = under_way.next().await {
            let more = sends < MAX_SENDS && matches!(end, Outcome::Refused);
            match outcome {
                Outcome::Acknowledged => {
                    if more && self.fate.copies == Copies::TwoInTurn {
                        sends += 1;
                        under_way.push(self.duplicate(sends));
                    }
                    end = Outcome::Acknowledged;
                }
                Outcome::Refused if more && under_way.is_empty() => {
                    let pause = sleep(self.platform.settings.resend_after);
                    if self
                        .platform
                        .stop
                        .run_until_cancelled(pause)
                        .await
                        .is_none()
                    {
                        return Outcome::Stopped;
                    }
                    sends += 1;
                    under_way.push(self.attempt(sends));
                }
                Outcome::Refused => {}
                Outcome::Slow(rest) => {
                    under_way.push(rest);
                    if more {
                        sends += 1;
                        under_way.push(self.attempt(sends));
                    }
                }
                Outcome::NoListener | Outcome::Stopped => {
                    if matches!(end, Outcome::Refused) {
                        end = outcome;
                    }
                }
            }
        }
        end
    }

    /// A second copy that nobody asked for.
    fn duplicate(&self, count: u32) -> BoxFuture<'_, Outcome<'_>> {
        add(&self.change.callbacks.duplicates);
        self.attempt(count)
    }

    /// One send, when its turn has come. Turns are given in the order in which
    /// they were asked for, and the patience begins with the turn.
    fn attempt(&self, count: u32) -> BoxFuture<'_, Outcome<'_>> {
        Box::pin(async move {
            let turn = self.platform.turns.acquire();
            let Some(Ok(turn)) = self.platform.stop.run_until_cancelled(turn).await else {
                return Outcome::Stopped;
            };
            let mut send: BoxFuture<'_, Outcome<'_>> = Box::pin(async move {
                let outcome = self.send(count).await;
                drop(turn);
                outcome
            });
            match timeout(self.platform.settings.patience, &mut send).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Slow(send),
            }
        })
    }

    async fn send(&self, count: u32) -> Outcome<'_> {
        // Looked up for each send: a new registration takes effect at once.
        let service = self.change.kind.service();
        let Some(listener) = self.platform.listener(&self.change.account, service) else {
            return Outcome::NoListener;
        };
        let body = message::write(self.change, self.device, self.fate.fault, &listener, count);
        let Ok(body) = body else {
            return Outcome::Refused;
        };
        add(&self.change.callbacks.sent);
        let post = self.platform.client.post(listener.url);
        let answer = post
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status().is_success() => {
                read_off(answer).await;
                Outcome::Acknowledged
            }
            Ok(answer) => {
                read_off(answer).await;
                Outcome::Refused
            }
            Err(_) => Outcome::Refused,
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
