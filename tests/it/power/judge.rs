//! What must be on every disk, whenever the power fails, and a judge that opens one and looks.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use thingspace_gateway::{
    domain::{
        change::Change,
        newtypes::{AccountName, IdempotencyKey, RequestId},
        state::ChangeState,
    },
    journal::{
        ChangeSelector, ChangeStore as _, Cursor, EventPayload, EventStore as _, Journal as _,
        Origin, QuarantineStore as _, WatchTarget,
        sqlite::{JournalOpenError, SqliteJournal, SqliteOptions},
    },
    telemetry::Instruments,
    watch::ResumeToken,
};

use crate::support::requests::ACCOUNT;

/// Something that the gateway has said or done, and so must know for ever.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A result of this request, with this ICCID, was answered with 200.
    Stored { request: String, iccid: String },
    /// What cannot be used, and says this, was answered with 200.
    Quarantined { says: String },
    /// A call with this key was answered with this change in this state.
    Answered {
        key: String,
        change: String,
        request: Option<String>,
        state: ChangeState,
    },
    /// The POST of the change with this key was at ThingSpace.
    PostSent { key: String },
    /// A watch was given this event.
    EventDelivered { token: String },
    /// ThingSpace was asked to log in with what it had refused, or was about to.
    LoginAttempted,
}

/// A fact, and between which operations of a trace it holds.
#[derive(Debug, Clone)]
pub struct TimedFact {
    pub from: usize,
    pub until: usize,
    pub fact: Fact,
}

/// What a disk has.
struct RecoveredJournal {
    epoch: u64,
    /// Of these targets, all results and events.
    read: HashSet<String>,
    results: HashMap<String, HashSet<String>>,
    events: HashMap<(String, Cursor), u32>,
    changes: HashMap<String, Change>,
    quarantined: Vec<String>,
    kv: HashMap<String, Vec<u8>>,
}

/// The journal's directory below a disk's root.
pub const JOURNAL: &str = "state/journal";

/// Opens the journal of a disk; answers with what is wrong with it.
pub async fn judge(disk: &Path, base_url: &str, cut: usize, facts: &[TimedFact]) -> Vec<String> {
    let held: Vec<&Fact> = facts
        .iter()
        .filter(|held| held.from <= cut && cut < held.until)
        .map(|held| &held.fact)
        .collect();
    let mut wrong = Vec::new();
    let options = SqliteOptions {
        dir: disk.join(JOURNAL),
        origin: Origin::from_url(&base_url.parse().expect("a URL")),
        allow_network_filesystem: true,
        instruments: Instruments::noop(),
    };
    let opened = match SqliteJournal::open(&options) {
        // The missing files are still reported.
        Err(error @ JournalOpenError::Damaged { .. }) => {
            wrong.push(format!("it is refused: {error}"));
            SqliteJournal::accept_loss(&options).and_then(|_| SqliteJournal::open(&options))
        }
        opened => opened,
    };
    let found = match opened {
        Ok(journal) => RecoveredJournal::load(&disk.join(JOURNAL), journal, &held).await,
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(found) => wrong.extend(held.into_iter().filter_map(|fact| found.missing(fact))),
        Err(error) => wrong.push(format!("it cannot be used: {error}")),
    }
    wrong
}

// === impl Found ===

impl RecoveredJournal {
    async fn load(dir: &Path, journal: SqliteJournal, held: &[&Fact]) -> Result<Self, String> {
        let to_text = |error: &dyn std::fmt::Display| error.to_string();
        let journal = Arc::new(journal);
        let mut found = Self {
            epoch: journal.epoch().0,
            read: HashSet::new(),
            results: HashMap::new(),
            events: HashMap::new(),
            changes: HashMap::new(),
            quarantined: Vec::new(),
            kv: read_kv(dir).map_err(|error| to_text(&error))?,
        };
        for fact in held {
            match fact {
                Fact::Stored { request, .. } => {
                    let target = WatchTarget::Request(RequestId::parse(request.as_str()).unwrap());
                    found.read_events(&journal, target).await?;
                }
                Fact::EventDelivered { token } => {
                    let token = ResumeToken::decode(token).expect("a token");
                    found.read_events(&journal, token.target).await?;
                }
                Fact::Answered { key, .. } | Fact::PostSent { key } => {
                    let name = ChangeSelector::Key(
                        AccountName::parse(ACCOUNT).unwrap(),
                        IdempotencyKey::parse(key.as_str()).unwrap(),
                    );
                    let change = journal.change(name).await;
                    if let Some(change) = change.map_err(|error| to_text(&error))? {
                        found.changes.insert(key.clone(), change);
                    }
                }
                Fact::Quarantined { .. } | Fact::LoginAttempted => {}
            }
        }
        let kept = journal.list_quarantined(0, 1_000).await;
        let kept = kept.map_err(|error| to_text(&error))?;
        let texts = kept
            .iter()
            .map(|(_, kept)| String::from_utf8_lossy(&kept.body).into_owned());
        found.quarantined = texts.collect();
        journal.close().await;
        Ok(found)
    }

    async fn read_events(
        &mut self,
        journal: &SqliteJournal,
        target: WatchTarget,
    ) -> Result<(), String> {
        if !self.read.insert(name(&target)) {
            return Ok(());
        }
        let mut after = Cursor::START;
        loop {
            let page = journal.events(target.clone(), after, 1_000).await;
            let page = page.map_err(|error| error.to_string())?;
            for event in &page.events {
                after = event.cursor;
                self.events
                    .insert((name(&target), event.cursor), event.event_hash);
                let EventPayload::Result(result) = &event.payload else {
                    continue;
                };
                let ids = &result.report.device_ids;
                let ids = ids.iter().filter(|id| id.kind == "iccid");
                let request = result.report.request_id.as_str().to_owned();
                let results = self.results.entry(request).or_default();
                for id in ids {
                    results.insert(id.id.clone());
                }
            }
            if page.is_end {
                return Ok(());
            }
        }
    }

    /// What is wrong, if this is not there.
    fn missing(&self, fact: &Fact) -> Option<String> {
        let wrong = match fact {
            Fact::Stored { request, iccid } => {
                let results = self.results.get(request);
                !results.is_some_and(|results| results.contains(iccid))
            }
            Fact::Quarantined { says } => !self.quarantined.iter().any(|kept| kept.contains(says)),
            Fact::Answered {
                key,
                change: id,
                request,
                state,
            } => !self.changes.get(key).is_some_and(|change| {
                change.change_id.to_string() == *id
                    && request.as_ref().is_none_or(|request| {
                        let mut ids = change.request_ids.iter();
                        ids.any(|id| id.as_str() == request)
                    })
                    && is_reachable(*state, change.state)
            }),
            Fact::PostSent { key } => {
                let states = [ChangeState::Queued, ChangeState::NotSent];
                let change = self.changes.get(key);
                change.is_none_or(|change| states.contains(&change.state))
            }
            Fact::EventDelivered { token } => {
                let token = ResumeToken::decode(token).expect("a token");
                let at = (name(&token.target), token.cursor);
                token.epoch.0 != self.epoch
                    || (token.cursor != Cursor::START
                        && self.events.get(&at) != Some(&token.event_hash))
            }
            Fact::LoginAttempted => {
                let mut failed_logins = self
                    .kv
                    .iter()
                    .filter(|(name, _)| name.starts_with("kv.failed_logins."));
                !failed_logins.any(|(_, value)| value.iter().take(2).any(|count| *count > 0))
            }
        };
        wrong.then(|| format!("lost: {fact:?}"))
    }
}

/// Whether a change that was in the one state can be in the other now.
fn is_reachable(before: ChangeState, now: ChangeState) -> bool {
    use ChangeState::{Accepted, Closed, Finished, OutcomeUnknown, Overdue};
    before == now
        || matches!(
            (before, now),
            (Accepted, Finished | Overdue | Closed)
                | (OutcomeUnknown, Accepted | Finished | Closed)
        )
        || before == ChangeState::NotSent
}

fn name(target: &WatchTarget) -> String {
    match target {
        WatchTarget::Change(id) => id.to_string(),
        WatchTarget::Request(id) => id.as_str().to_owned(),
    }
}

/// The small values; and SQLite's own word that the database is whole.
fn read_kv(dir: &Path) -> rusqlite::Result<HashMap<String, Vec<u8>>> {
    let database = rusqlite::Connection::open(dir.join("journal.db"))?;
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(rusqlite::Error::InvalidColumnName(whole));
    }
    let mut notes = database.prepare("SELECT name, value FROM meta")?;
    let rows = notes.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
