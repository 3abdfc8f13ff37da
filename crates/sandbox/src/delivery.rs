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

use super::changes::MAX_DEVICES;
use super::fate::{Copies, Ending, Interim, When};
use super::ledger::{Change, Outcome, Subject, add};
use super::message::{self, MAX_SENDS};
use super::platform::{Gate, Platform};

/// When a send is over, whatever the listener does.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How much of a listener's answer is read, to keep the connection usable.
const MAX_ANSWER: usize = 64 * 1024;

/// A change whose callbacks are to be sent.
pub(super) struct Job {
    pub(super) change: Arc<Change>,
    pub(super) subjects: Arc<[Subject]>,
    /// The order in which the devices are told.
    pub(super) order: Vec<usize>,
    pub(super) answered_at: Instant,
    /// Opens when the early callbacks are out.
    pub(super) gate: Arc<Gate>,
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

/// Sends all callbacks of a change. All its devices may be under way at a time:
/// one that waits for a resend holds up no other.
pub(super) async fn run(platform: Arc<Platform>, job: Job) {
    let (early, due) = job.early_and_due();
    let early = tell_all(&platform, &job, early);
    let due = async {
        job.gate.opened().await;
        let start = job.answered_at.max(Instant::now()) + platform.settings.callback_delay;
        if platform.wait_until(start).await {
            tell_all(&platform, &job, due).await;
        }
    };
    tokio::join!(early, due);
    platform.ledger().settled(job.subjects.len());
}

impl Job {
    /// Who is told before the answer, and who after it.
    fn early_and_due(&self) -> (Vec<usize>, Vec<usize>) {
        let is_early = |index: &usize| {
            let subject = self.subjects.get(*index);
            subject.is_some_and(|subject| subject.fate.when == When::Early)
        };
        self.order.iter().partition(|index| is_early(index))
    }
}

async fn tell_all(platform: &Platform, job: &Job, indexes: Vec<usize>) {
    stream::iter(indexes)
        .for_each_concurrent(MAX_DEVICES, |index| tell(platform, job, index))
        .await;
}

async fn tell(platform: &Platform, job: &Job, index: usize) {
    let Some(subject) = job.subjects.get(index) else {
        return;
    };
    let callback = Callback {
        platform,
        change: &job.change,
        subject,
        gate: &job.gate,
        counted: AtomicBool::new(subject.fate.when != When::Early),
    };
    callback.tell().await;
}

/// The callbacks about one device.
struct Callback<'c> {
    platform: &'c Platform,
    change: &'c Change,
    subject: &'c Subject,
    gate: &'c Gate,
    /// Whether the gate knows already that this one is out.
    counted: AtomicBool,
}

/// How a send ended.
enum Sent<'c> {
    Acknowledged,
    Refused,
    /// No answer within the platform's patience; this is the rest of the send.
    Slow(BoxFuture<'c, Sent<'c>>),
    NoListener,
    Stopped,
}

impl Callback<'_> {
    async fn tell(&self) {
        let settings = &self.platform.settings;
        if self.platform.stop.is_cancelled() {
            return;
        }
        if let Some(interim) = self.subject.fate.first {
            self.until_acknowledged(Some(interim)).await;
            if !self.platform.wait(settings.interim_for).await {
                return;
            }
        }
        self.settle();
        match self.subject.fate.when {
            When::Never => {
                add(&self.change.callbacks.lost);
                return;
            }
            When::Late => {
                if !self.platform.wait(settings.late_by).await {
                    return;
                }
            }
            When::Due | When::Early => {}
        }
        let tally = &self.change.callbacks;
        match self.until_acknowledged(None).await {
            Sent::Acknowledged => add(&tally.acknowledged),
            Sent::NoListener => add(&tally.no_listener),
            Sent::Refused => add(&tally.gave_up),
            Sent::Slow(_) | Sent::Stopped => {}
        }
    }

    /// From now on the platform knows what became of the device.
    fn settle(&self) {
        let outcome = match self.subject.fate.ending {
            Ending::Succeeds => {
                self.subject.record.put_on(&self.change.service_plan);
                Outcome::Succeeded
            }
            Ending::Fails(_) => {
                add(&self.change.callbacks.failed_devices);
                Outcome::Failed
            }
        };
        self.subject.told().outcome = outcome;
    }

    /// Sends until somebody takes it, and waits for every copy under way.
    async fn until_acknowledged(&self, interim: Option<Interim>) -> Sent<'_> {
        let copies = match interim {
            Some(_) => Copies::One,
            None => self.subject.fate.copies,
        };
        let mut under_way = FuturesUnordered::new();
        let mut sends = 1;
        under_way.push(self.attempt(interim, 1));
        if copies == Copies::TwoAtOnce {
            sends = 2;
            under_way.push(self.duplicate(2));
        }
        let policy = self.platform.policy;
        let mut end = Sent::Refused;
        while let Some(sent) = under_way.next().await {
            if !self.counted.swap(true, Ordering::Relaxed) {
                self.gate.one_is_out();
            }
            let more = sends < policy.sends && matches!(end, Sent::Refused);
            match sent {
                Sent::Acknowledged => {
                    let first = matches!(end, Sent::Refused);
                    if copies == Copies::TwoInTurn && first && sends < MAX_SENDS {
                        sends += 1;
                        under_way.push(self.duplicate(sends));
                    }
                    end = Sent::Acknowledged;
                }
                Sent::Refused if more && under_way.is_empty() => {
                    if !self.platform.wait(policy.pause).await {
                        return Sent::Stopped;
                    }
                    sends += 1;
                    under_way.push(self.attempt(interim, sends));
                }
                Sent::Refused => {}
                Sent::Slow(rest) => {
                    under_way.push(rest);
                    if more {
                        sends += 1;
                        under_way.push(self.attempt(interim, sends));
                    }
                }
                Sent::NoListener | Sent::Stopped => {
                    if matches!(end, Sent::Refused) {
                        end = sent;
                    }
                }
            }
        }
        end
    }

    /// A second copy that nobody asked for.
    fn duplicate(&self, count: u32) -> BoxFuture<'_, Sent<'_>> {
        add(&self.change.callbacks.duplicates);
        self.attempt(None, count)
    }

    /// One send, when its turn has come. Turns are given in the order in which
    /// they were asked for, and the patience begins with the turn.
    fn attempt(&self, interim: Option<Interim>, count: u32) -> BoxFuture<'_, Sent<'_>> {
        Box::pin(async move {
            let turn = self.platform.turns.acquire();
            let Some(Ok(turn)) = self.platform.stop.run_until_cancelled(turn).await else {
                return Sent::Stopped;
            };
            let mut send: BoxFuture<'_, Sent<'_>> = Box::pin(async move {
                let sent = self.send(interim, count).await;
                drop(turn);
                sent
            });
            let Some(patience) = self.platform.policy.patience else {
                return send.await;
            };
            match timeout(patience, &mut send).await {
                Ok(sent) => sent,
                Err(_) => Sent::Slow(send),
            }
        })
    }

    async fn send(&self, interim: Option<Interim>, count: u32) -> Sent<'_> {
        // Looked up for each send: a new registration takes effect at once.
        let service = self.change.kind.service();
        let Some(listener) = self.platform.listener(&self.change.account, service) else {
            return Sent::NoListener;
        };
        let body = message::write(self.change, self.subject, interim, &listener, count);
        let Ok(body) = body else {
            return Sent::Refused;
        };
        add(&self.change.callbacks.sent);
        let place = self.subject.begin_try(interim.is_some(), count);
        let post = self.platform.client.post(listener.url);
        let answer = post
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await;
        let Ok(answer) = answer else {
            return Sent::Refused;
        };
        let status = answer.status();
        self.subject.end_try(place, status.as_u16());
        read_off(answer).await;
        if status.is_success() {
            Sent::Acknowledged
        } else {
            Sent::Refused
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
