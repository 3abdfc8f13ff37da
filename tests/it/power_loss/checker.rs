//! Facts that a journal must keep over a power loss, and their check.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use thingspace_gateway::{
    domain::{
        change::Change,
        newtypes::{AccountName, IdempotencyKey, RequestId},
        state::ChangeState,
    },
    journal::{
        ChangeSelector, Cursor, EventPayload, EventQuery, Journal, Origin, WatchTarget,
        sqlite::{self, JournalOpenError, OpenFailure, SqliteOptions, accept_loss, transfer},
        transfer::TimeLimit,
    },
    telemetry::Instruments,
    watch::ResumeToken,
};

use crate::support::requests::ACCOUNT;

/// An acknowledgement or a visible action of the gateway.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A callback of this request with this ICCID was acknowledged with 200.
    Stored { request: String, iccid: String },
    /// An unusable callback with this text was acknowledged with 200.
    Quarantined { marker: String },
    /// A call with this key returned this change in this state.
    Answered { key: String, change: String, request: Option<String>, state: ChangeState },
    /// The POST of the change with this key arrived at ThingSpace.
    PostSent { key: String },
    /// A watch delivered this event.
    EventDelivered { token: String },
    /// ThingSpace refused a log-in.
    LoginAttempted,
}

/// A fact, and the range of operations of a trace in which it holds.
#[derive(Debug, Clone)]
pub struct TimedFact {
    pub from: usize,
    pub until: usize,
    pub fact: Fact,
}

/// The contents of a journal.
struct RecoveredJournal {
    epoch: u64,
    /// Targets whose results and events were read.
    read: HashSet<String>,
    results: HashMap<String, HashSet<String>>,
    events: HashMap<(String, Cursor), u32>,
    changes: HashMap<String, Change>,
    quarantined: Vec<String>,
    kv: HashMap<String, Vec<u8>>,
}

/// The journal's directory below a disk's root.
pub const JOURNAL: &str = "state/journal";

/// Opens the journal of a disk, and returns the violations.
pub async fn check_journal(
    disk: &Path,
    base_url: &str,
    cut: usize,
    facts: &[TimedFact],
) -> Vec<String> {
    let expected: Vec<&Fact> = facts
        .iter()
        .filter(|timed| timed.from <= cut && cut < timed.until)
        .map(|timed| &timed.fact)
        .collect();
    let mut violations = Vec::new();
    let options = SqliteOptions {
        dir: disk.join(JOURNAL),
        origin: Origin::from_url(&base_url.parse().expect("a URL")),
        allow_network_filesystem: true,
        instruments: Instruments::noop(),
    };
    let opened = match sqlite::open(&options) {
        // Lost data is still reported as violations.
        Err(error @ JournalOpenError { failure: OpenFailure::Damaged(_), .. }) => {
            violations.push(format!("the journal is rejected: {error}"));
            accept_loss(&options.dir, true, &[]).and_then(|_| sqlite::open(&options))
        }
        opened => opened,
    };
    let found = match opened {
        Ok(journal) => RecoveredJournal::load(&disk.join(JOURNAL), journal, &expected).await,
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(found) => {
            violations.extend(expected.into_iter().filter_map(|fact| found.missing(fact)));
            violations.extend(find_damage(&options.dir));
        }
        Err(error) => violations.push(format!("the journal is unusable: {error}")),
    }
    violations
}

/// Returns the findings of `journal check`.
fn find_damage(dir: &Path) -> Vec<String> {
    match transfer::check(dir, true, TimeLimit::start(Duration::from_secs(60))) {
        Ok(report) => report.findings.into_iter().map(|finding| finding.problem).collect(),
        Err(error) => vec![format!("the journal cannot be checked: {error}")],
    }
}

// === impl RecoveredJournal ===

impl RecoveredJournal {
    async fn load(dir: &Path, journal: Arc<dyn Journal>, facts: &[&Fact]) -> Result<Self, String> {
        let to_text = |error: &dyn std::fmt::Display| error.to_string();
        let mut found = Self {
            epoch: journal.epoch().0,
            read: HashSet::new(),
            results: HashMap::new(),
            events: HashMap::new(),
            changes: HashMap::new(),
            quarantined: Vec::new(),
            kv: read_kv(dir).map_err(|error| to_text(&error))?,
        };
        for fact in facts {
            match fact {
                Fact::Stored { request, .. } => {
                    let target = WatchTarget::Request(RequestId::parse(request.as_str()).unwrap());
                    found.read_events(&*journal, target).await?;
                }
                Fact::EventDelivered { token } => {
                    let token = ResumeToken::decode(token).expect("a token");
                    found.read_events(&*journal, token.target).await?;
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
        let quarantined = journal.list_quarantined(0, 1_000).await;
        let quarantined = quarantined.map_err(|error| to_text(&error))?;
        let texts = quarantined
            .iter()
            .map(|(_, callback)| String::from_utf8_lossy(&callback.body).into_owned());
        found.quarantined = texts.collect();
        journal.close().await;
        Ok(found)
    }

    async fn read_events(
        &mut self,
        journal: &dyn Journal,
        target: WatchTarget,
    ) -> Result<(), String> {
        if !self.read.insert(name(&target)) {
            return Ok(());
        }
        let mut after = Cursor::START;
        loop {
            let page = journal.events(target.clone(), EventQuery::new(after, 1_000)).await;
            let page = page.map_err(|error| error.to_string())?;
            for event in &page.events {
                after = event.cursor;
                self.events.insert((name(&target), event.cursor), event.event_hash);
                let EventPayload::Result(result) = &event.payload else {
                    continue;
                };
                let result = result.to_proto(false, false).map_err(|error| error.to_string())?;
                let ids = &result.device_ids;
                let ids = ids.iter().filter(|id| id.kind == "iccid");
                let request = result.request_id.clone();
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

    /// Returns a violation if the journal lacks this fact.
    fn missing(&self, fact: &Fact) -> Option<String> {
        let is_missing = match fact {
            Fact::Stored { request, iccid } => {
                let results = self.results.get(request);
                !results.is_some_and(|results| results.contains(iccid))
            }
            Fact::Quarantined { marker } => {
                !self.quarantined.iter().any(|body| body.contains(marker))
            }
            Fact::Answered { key, change: id, request, state } => {
                !self.changes.get(key).is_some_and(|change| {
                    change.change_id.to_string() == *id
                        && request.as_ref().is_none_or(|request| {
                            let mut ids = change.request_ids.iter();
                            ids.any(|id| id.as_str() == request)
                        })
                        && is_reachable(*state, change.state)
                })
            }
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
                let mut failed_logins =
                    self.kv.iter().filter(|(name, _)| name.starts_with("kv.failed_logins."));
                !failed_logins.any(|(_, value)| value.iter().take(2).any(|count| *count > 0))
            }
        };
        is_missing.then(|| format!("lost: {fact:?}"))
    }
}

/// True if a change in state `before` can be in state `now` later. Independent of the gateway's table of
/// transitions.
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
        WatchTarget::Account(name) => name.as_str().to_owned(),
    }
}

/// Reads the key-value table. Fails if SQLite's `integrity_check` does.
fn read_kv(dir: &Path) -> rusqlite::Result<HashMap<String, Vec<u8>>> {
    let database = rusqlite::Connection::open(dir.join("journal.db"))?;
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(rusqlite::Error::InvalidColumnName(whole));
    }
    let mut values = database.prepare("SELECT name, value FROM meta")?;
    let rows = values.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
