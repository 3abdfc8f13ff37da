//! Follows the journal and binds requests that nobody made to changes whose answer was lost.
//!
//! What proves it is the journal's to judge, in one transaction. This only sees to it that each
//! request is looked at when there is news of it, and each change when it becomes unknown.

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
        change::{Change, ChangeState},
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
/// News of one request come in a burst: it is looked at once for many.
const GATHER: Duration = Duration::from_millis(50);
/// How often ThingSpace is asked about one request, at most; and how often all that is unknown is
/// looked at although there is no news.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Requests that are remembered as asked about.
const MAX_ASKED: usize = 1_000;
/// The pause after the journal could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// What there is news of.
#[derive(Default)]
struct News {
    requests: HashSet<RequestId>,
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
    /// When ThingSpace was asked about a request last.
    asked: Mutex<HashMap<RequestId, Instant>>,
}

// === impl Mailbox ===

impl Observer for Mailbox {
    fn committed(&self, touched: &[Target]) {
        let mut news = self.news.lock();
        for target in touched {
            match target {
                Target::Request(request) if news.requests.len() < MAX_NEWS => {
                    news.requests.insert(request.clone());
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
            asked: Mutex::default(),
        }
    }

    /// Binds what can be bound, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = async {
            loop {
                let arrived = timeout(ASK_AGAIN, self.mailbox.arrived.notified()).await;
                sleep(GATHER).await;
                let mut news = std::mem::take(&mut *self.mailbox.news.lock());
                news.changes |= arrived.is_err();
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
        let mut requests = news.requests.clone();
        if news.changes {
            for change in self.unknown().await? {
                if let Some(sent) = change.dispatch_time {
                    requests.extend(self.journal.orphans(sent, MAX_ORPHANS).await?);
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
        let now = self.clock.now();
        let mut adoption = self.journal.adopt(request.clone(), None, now).await?;
        if let Adoption::Part(change) = &adoption
            && self.may_ask(&request)
        {
            match self.listed(change, &request).await {
                Ok(listed) => {
                    adoption = self
                        .journal
                        .adopt(request.clone(), Some(listed), now)
                        .await?;
                }
                Err(error) => tracing::debug!(%request, %error, "the request's status is unknown"),
            }
        }
        if let Adoption::Adopted(change) = adoption {
            tracing::info!(change_id = %change.change_id, %request, "bound by evidence");
        }
        Ok(())
    }

    fn may_ask(&self, request: &RequestId) -> bool {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        asked.retain(|_, at| now.duration_since(*at) < ASK_AGAIN);
        let may = asked.len() < MAX_ASKED && !asked.contains_key(request);
        if may {
            asked.insert(request.clone(), now);
        }
        may
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
    fn put_back(&self, old: News) {
        let mut news = self.news.lock();
        news.changes |= old.changes;
        news.requests.extend(old.requests);
        self.arrived.notify_one();
    }
}
