//! Follows the journal and binds requests that nobody made to changes whose answer was lost.
//!
//! What proves it is the journal's to judge, in one transaction. This sees to it that each request is
//! looked at once nothing more was heard of it for a while, and each change when it becomes unknown.
//! The while matters: callbacks come one by one, so that somebody else's request for more devices
//! looks just like ours for a moment. For eSIM, ThingSpace is asked as well, and nothing is bound before it
//! has answered.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        adoption::Listing,
        change::{Change, ChangeState, ChangeType},
        clock::Clock,
        identifier::ReportedId,
        names::RequestId,
    },
    journal::{Adoption, ChangeFilter, Journal, JournalError, Observer, Target},
    thingspace::{LookUpError, ThingSpace},
};

/// Requests that may wait to be looked at; beyond that, all of the last days are.
const MAX_NEWS: usize = 4_096;
/// Requests that are looked at for one change.
const MAX_ORPHANS: usize = 1_000;
/// How often ThingSpace is asked about one request, at most; and how often all that is unknown is
/// looked at although there is no news.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How soon it is asked again when it did not answer; then twice as long each time.
const FIRST_AGAIN: Duration = Duration::from_secs(1);
/// Requests that are remembered as asked about.
const MAX_ASKED: usize = 1_000;
/// The pause after the journal could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// What there is news of.
#[derive(Default)]
struct News {
    /// Requests with new results, and when the latest came.
    requests: HashMap<RequestId, Instant>,
    /// Every unknown change is to be looked at: one may just have become so.
    changes: bool,
}

#[derive(Default)]
struct Mailbox {
    news: Mutex<News>,
    arrived: Notify,
}

/// Binds by evidence.
pub struct Binder {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    mailbox: Arc<Mailbox>,
    /// How long nothing more must have been heard of a request.
    quiet: Duration,
    /// Requests that ThingSpace was asked about, until they are asked about again.
    asked: Mutex<HashMap<RequestId, Asked>>,
}

/// When a request is asked about again, and how often nobody has answered.
#[derive(Debug, Clone, Copy)]
struct Asked {
    again: Instant,
    unanswered: u32,
}

/// What the question for a request's devices came to.
enum Answered {
    Devices(Vec<Vec<ReportedId>>),
    /// There is no list, or nobody knows yet.
    Not(Listing),
}

// === impl Mailbox ===

impl Observer for Mailbox {
    fn committed(&self, touched: &[Target]) {
        let now = Instant::now();
        let mut news = self.news.lock();
        for target in touched {
            match target {
                Target::Request(request) if news.requests.len() < MAX_NEWS => {
                    news.requests.insert(request.clone(), now);
                }
                Target::Request(_) | Target::Change(_) => news.changes = true,
            }
        }
        self.arrived.notify_one();
    }
}

/// The journal keeps its observers for good: it is not to keep the room as well.
struct Door(Weak<Mailbox>);

impl Observer for Door {
    fn committed(&self, touched: &[Target]) {
        if let Some(mailbox) = self.0.upgrade() {
            mailbox.committed(touched);
        }
    }
}

// === impl Binder ===

impl Binder {
    /// Follows a journal from here on.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        quiet: Duration,
    ) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        journal.observe(Arc::new(Door(Arc::downgrade(&mailbox))));
        // What was there before is news as well.
        mailbox.news.lock().changes = true;
        mailbox.arrived.notify_one();
        Self {
            journal,
            thingspace,
            clock,
            mailbox,
            quiet,
            asked: Mutex::default(),
        }
    }

    /// Binds what can be bound, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = async {
            loop {
                let wait = self.mailbox.next(self.quiet).min(ASK_AGAIN);
                let arrived = timeout(wait, self.mailbox.arrived.notified()).await;
                let mut news = self.mailbox.take(self.quiet);
                news.changes |= arrived.is_err() && wait == ASK_AGAIN;
                if let Err(error) = self.look(&news).await {
                    tracing::warn!(%error, "requests could not be bound");
                    self.mailbox.put_back(news);
                    sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    async fn look(&self, news: &News) -> Result<(), JournalError> {
        // Nothing is unknown, mostly: then a callback is nobody's business here.
        if self.journal.census().of(ChangeState::OutcomeUnknown) == 0 {
            return Ok(());
        }
        let mut requests: HashSet<RequestId> = news.requests.keys().cloned().collect();
        if news.changes {
            for change in self.unknown().await? {
                if let Some(sent) = change.dispatch_time {
                    let orphans = self.journal.orphans(sent, MAX_ORPHANS).await?;
                    // Those that are still being heard of have their turn later.
                    requests.extend(self.mailbox.without_news(orphans));
                }
            }
        }
        for request in requests {
            self.adopt(request).await?;
        }
        Ok(())
    }

    async fn unknown(&self) -> Result<Vec<Change>, JournalError> {
        let mut all = Vec::new();
        let mut filter = ChangeFilter {
            states: vec![ChangeState::OutcomeUnknown],
            limit: 100,
            ..ChangeFilter::default()
        };
        loop {
            let page = self.journal.changes(filter.clone()).await?;
            all.extend(page.changes);
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn adopt(&self, request: RequestId) -> Result<(), JournalError> {
        let bind = |listed| {
            let now = self.clock.now();
            self.journal.adopt(request.clone(), listed, true, now)
        };
        let now = self.clock.now();
        let looked = self
            .journal
            .adopt(request.clone(), None, false, now)
            .await?;
        let (change, is_whole) = match &looked {
            Adoption::Whole(change) => (change, true),
            Adoption::Part(change) => (change, false),
            Adoption::Adopted(_) | Adoption::Unproven => return Ok(()),
        };
        let adoption = match self.ask(change, &request).await {
            Answered::Devices(listed) => bind(Some(listed)).await?,
            Answered::Not(listing) if is_whole && listing.lets_bind() => bind(None).await?,
            Answered::Not(_) => return Ok(()),
        };
        if let Adoption::Adopted(change) = adoption {
            tracing::info!(change_id = %change.change_id, %request, "bound by evidence");
        }
        Ok(())
    }

    /// Asks for the devices of a request, where there can be an answer.
    async fn ask(&self, change: &Change, request: &RequestId) -> Answered {
        if change.change_type == ChangeType::FiveGBiPlan {
            return Answered::Not(Listing::Nowhere);
        }
        let unanswered = match self.may_ask(request) {
            Ok(unanswered) => unanswered,
            Err(again) => {
                self.mailbox.look_again(request, again, self.quiet);
                return Answered::Not(Listing::Unanswered);
            }
        };
        match self.listed(change, request).await {
            Ok(listed) => Answered::Devices(listed),
            // It may know of no such question at all, as the documents have nothing on it. Once it has
            // told one status, a refusal is news of this request only, and proves nothing.
            Err(LookUpError::Refused(why)) if !self.thingspace.tells_statuses() => {
                tracing::debug!(%request, why, "there is no status of requests");
                Answered::Not(Listing::Nowhere)
            }
            Err(error) => {
                tracing::debug!(%request, %error, "the request's status is unknown");
                let wait = FIRST_AGAIN.saturating_mul(1 << unanswered.min(10));
                let again = Instant::now() + wait.min(ASK_AGAIN);
                let asked = Asked {
                    again,
                    unanswered: unanswered.saturating_add(1),
                };
                self.asked.lock().insert(request.clone(), asked);
                self.mailbox.look_again(request, again, self.quiet);
                Answered::Not(Listing::Unanswered)
            }
        }
    }

    /// How often it was asked about in vain, or when it may be asked about again.
    fn may_ask(&self, request: &RequestId) -> Result<u32, Instant> {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        let before = asked.get(request).copied();
        match before {
            Some(asked) if asked.again > now => return Err(asked.again),
            // Those that are long past make room.
            None if asked.len() >= MAX_ASKED => {
                asked.retain(|_, asked| asked.again > now);
                if asked.len() >= MAX_ASKED {
                    return Err(now + ASK_AGAIN);
                }
            }
            _ => {}
        }
        let unanswered = before.map_or(0, |asked| asked.unanswered);
        let again = now + ASK_AGAIN;
        let next = Asked { again, unanswered };
        asked.insert(request.clone(), next);
        Ok(unanswered)
    }

    /// The devices that ThingSpace's own status of a request lists.
    async fn listed(
        &self,
        change: &Change,
        request: &RequestId,
    ) -> Result<Vec<Vec<ReportedId>>, LookUpError> {
        let devices = self.thingspace.request_status(&change.account, request);
        Ok(devices
            .await?
            .into_iter()
            .map(|device| device.ids)
            .collect())
    }
}

impl Mailbox {
    /// How long until a request has been quiet for long enough.
    fn next(&self, quiet: Duration) -> Duration {
        let news = self.news.lock();
        let oldest = news.requests.values().min();
        oldest.map_or(Duration::MAX, |at| {
            (*at + quiet).saturating_duration_since(Instant::now())
        })
    }

    /// What can be looked at now.
    fn take(&self, quiet: Duration) -> News {
        let now = Instant::now();
        let mut news = self.news.lock();
        let all = std::mem::take(&mut news.requests);
        let (due, rest) = all
            .into_iter()
            .partition(|(_, at)| now.duration_since(*at) >= quiet);
        news.requests = rest;
        News {
            requests: due,
            changes: std::mem::take(&mut news.changes),
        }
    }

    /// Has a request looked at again at this time, as if it had just become quiet.
    fn look_again(&self, request: &RequestId, at: Instant, quiet: Duration) {
        let mut news = self.news.lock();
        if let Some(heard) = at.checked_sub(quiet)
            && news.requests.len() < MAX_NEWS
        {
            news.requests.entry(request.clone()).or_insert(heard);
        }
    }

    fn without_news(&self, requests: Vec<RequestId>) -> Vec<RequestId> {
        let news = self.news.lock();
        let is_quiet = |request: &RequestId| !news.requests.contains_key(request);
        requests.into_iter().filter(is_quiet).collect()
    }

    fn put_back(&self, old: News) {
        let mut news = self.news.lock();
        news.changes |= old.changes;
        news.requests.extend(old.requests);
        self.arrived.notify_one();
    }
}
