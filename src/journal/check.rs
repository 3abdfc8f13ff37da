//! Checks that the rows of a journal's tables fit together. Reads only.
//!
//! The engines add what they alone can check: the pages of the database, the marker, the types of values, the head row.
//!
//! Damage is a finding, and the check goes on.

mod records;

use std::collections::BTreeMap;

use crate::{
    domain::{
        device_states::{DeviceCounts, DeviceStates},
        result::Outcome,
    },
    journal::{
        apply::Counts,
        check::records::RECORDS,
        record::{StatusRecord, decode_result},
        sql::{
            self, Database, Row,
            tables::{changes, events, forward_queue, meta, quarantine},
            value::{Json, state_code, values},
        },
        transfer::{self, Source, Table, TransferError},
    },
};

/// Maximum number of findings of one rule that have a line of their own.
const MAX_FINDINGS: usize = 5;
/// Number of changes whose decided devices are in memory at a time.
const CHANGES_OF_PART: usize = 10_000;
/// The remedy of damage that no command repairs.
const RESTORE_REMEDY: &str = "The journal is damaged. Copy it, then restore the newest backup into an empty journal with \
                       `thingspace-gateway journal restore`";

/// A result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The problem.
    pub problem: String,
    /// The remedy. Empty if the problem implies it.
    pub remedy: &'static str,
}

/// The state of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The ThingSpace that the changes were sent to. Empty if the journal cannot be read.
    pub origin: String,
    /// The epoch, as a hexadecimal number. Empty if the journal cannot be read.
    pub epoch: String,
    /// The newest position.
    pub last_position: u64,
    /// The number of changes and of events.
    pub rows: BTreeMap<String, u64>,
    /// True if a gateway, or another command, used the journal during the check.
    pub is_in_use: bool,
    /// The problems. None if the journal is sound.
    pub findings: Vec<Finding>,
    /// The counts that the rows have.
    pub(in crate::journal) counts: Counts,
}

/// Rows of one table that must have a row in another.
struct Rule {
    /// The description of a row that violates the rule, up to its number.
    problem: &'static str,
    /// Returns the number of rows that violate the rule, and the lowest of their numbers.
    sql: &'static str,
}

/// The rules between tables. Retention deletes the rows of a change before the change itself, so they also hold while it
/// removes one.
const RULES: &[Rule] = &[
    Rule {
        problem: "events belong to no account",
        sql: "SELECT count(*), min(position) FROM event e WHERE account IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM account a WHERE a.id = e.account)",
    },
    Rule {
        problem: "events belong to no change",
        sql: "SELECT count(*), min(position) FROM event e WHERE kind = 0
              AND NOT EXISTS (SELECT 1 FROM change c WHERE c.id = e.stream)",
    },
    Rule {
        problem: "results belong to no request",
        sql: "SELECT count(*), min(position) FROM event e WHERE kind <> 0
              AND NOT EXISTS (SELECT 1 FROM request r WHERE r.id = e.stream)",
    },
    Rule {
        problem: "bodies of callbacks belong to no result",
        sql: "SELECT count(*), min(position) FROM callback_body b
              WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.position = b.position AND kind <> 0)",
    },
    Rule {
        problem: "changes belong to no account",
        sql: "SELECT count(*), min(id) FROM change c
              WHERE NOT EXISTS (SELECT 1 FROM account a WHERE a.id = c.account)",
    },
    Rule {
        problem: "changes have no first event",
        sql: "SELECT count(*), min(id) FROM change c WHERE trimmed = 0
              AND NOT EXISTS (SELECT 1 FROM event e WHERE e.position = c.id AND kind = 0)",
    },
    Rule {
        problem: "changes have a request that is not theirs",
        sql: "SELECT count(*), min(id) FROM change c WHERE trimmed = 0 AND request IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM request r WHERE r.id = c.request AND r.change = c.id)",
    },
    Rule {
        problem: "requests belong to no change",
        sql: "SELECT count(*), min(id) FROM request r WHERE change IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM change c WHERE c.id = r.change)",
    },
    Rule {
        problem: "digests belong to no request",
        sql: "SELECT count(*), min(request) FROM result_digest d
              WHERE NOT EXISTS (SELECT 1 FROM request r WHERE r.id = d.request)",
    },
    Rule {
        problem: "blocks of devices belong to no change",
        sql: "SELECT count(*), min(id) FROM device_block b
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = (b.id >> 20))",
    },
    Rule {
        problem: "parts of a device index belong to no change",
        sql: "SELECT count(*), min(id) FROM key_part k
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = (k.id >> 20))",
    },
    Rule {
        problem: "identifiers of devices belong to no change",
        sql: "SELECT count(*), min(change) FROM device_key k
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = k.change)",
    },
    Rule {
        problem: "states of devices belong to no change",
        sql: "SELECT count(*), min(id) FROM device_state d
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = (d.id >> 20))",
    },
    Rule {
        problem: "states of devices have no deciding result",
        sql: "SELECT count(*), min(d.id) FROM device_state d JOIN change c ON c.id = (d.id >> 20)
              WHERE c.trimmed = 0 AND d.decided_by IS NOT NULL AND NOT EXISTS
                (SELECT 1 FROM event e WHERE e.position = d.decided_by AND kind <> 0)",
    },
    Rule {
        problem: "unmatched results belong to no change",
        sql: "SELECT count(*), min(change) FROM unmatched_result u
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = u.change)",
    },
    Rule {
        problem: "owners of identifiers belong to no change",
        sql: "SELECT count(*), min(change) FROM identifier_owner o
              WHERE NOT EXISTS (SELECT 1 FROM change c WHERE c.id = o.change)",
    },
];

/// Checks the tables of a journal. Fails if there is none, or if it waits for an import or a restore.
pub(in crate::journal) fn check(source: &dyn Source) -> Result<CheckReport, TransferError> {
    let mut check = Check::default();
    check.check_identity(source);
    check.check_tables(source);
    check.finish(|error| error)
}

/// A check of several steps.
#[derive(Debug, Default)]
pub(in crate::journal) struct Check {
    report: CheckReport,
    /// True if damage has ended a step early.
    is_partial: bool,
    /// The error that has ended the check.
    error: Option<TransferError>,
}

impl Check {
    /// Runs a step, unless the check has ended. Damage that ends the step is a finding, and the check goes on.
    pub(in crate::journal) fn run(
        &mut self,
        subject: &str,
        step: impl FnOnce(&mut CheckReport) -> Result<(), TransferError>,
    ) {
        if self.error.is_some() {
            return;
        }
        match step(&mut self.report) {
            Ok(()) => {}
            Err(TransferError::DamagedDatabase(text)) => {
                self.is_partial = true;
                self.report.add(format!("{subject} cannot be checked: {text}"));
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Loads the identity of the journal.
    pub(in crate::journal) fn check_identity(&mut self, source: &dyn Source) {
        let db = source.database();
        self.run("the state of the journal", |_| transfer::check_ready(db));
        self.run("the identity of the journal", |report| {
            let epoch = meta::load(db, meta::EPOCH)?.map(u64::from_be_bytes);
            let key: Option<[u8; 32]> = meta::load(db, meta::FINGERPRINT_KEY)?;
            let (Some(epoch), Some(_), Some(origin)) = (epoch, key, meta::load_origin(db)?) else {
                return Err(TransferError::NoJournal);
            };
            (report.origin, report.epoch) = (origin, format!("{epoch:016x}"));
            Ok(())
        });
    }

    /// Checks that the rows of the tables can be decoded and fit together.
    pub(in crate::journal) fn check_tables(&mut self, source: &dyn Source) {
        for rule in RULES {
            self.run(&format!("whether {}", rule.problem), |report| {
                report.check_rule(source, rule)
            });
        }
        self.run("the events", |report| report.check_events(source));
        for records in RECORDS {
            self.run(records.name, |report| report.check_records(source, records));
        }
        self.run("the changes", |report| report.check_changes(source));
        self.run("the counts", |report| {
            let db = source.database();
            report.counts.quarantine_bytes = quarantine::count_bytes(db)?;
            report.counts.forward_queue.waiting = forward_queue::count(db)?;
            Ok(())
        });
    }

    /// Checks that each value has the type of its column, for an engine that does not ensure it. Readers of the journal fail
    /// at another one.
    pub(in crate::journal) fn check_types(&mut self, source: &dyn Source) {
        for table in transfer::TABLES {
            self.run(&format!("the table {}", table.name), |report| {
                report.check_types(source, table)
            });
        }
    }

    /// Compares counts that an engine has stored with those of the rows, unless some of the rows cannot be read.
    pub(in crate::journal) fn compare_counts(&mut self, stored: &Counts) {
        if !self.is_partial {
            self.run("the stored counts", |report| {
                report.compare_counts(stored);
                Ok(())
            });
        }
    }

    /// Ends the check. If an error has ended it before, the earlier findings remain. `explain` may return the cause of the
    /// error.
    pub(in crate::journal) fn finish(
        self,
        explain: impl FnOnce(TransferError) -> TransferError,
    ) -> Result<CheckReport, TransferError> {
        let Self { mut report, error, .. } = self;
        match error.map(explain) {
            None => Ok(report),
            Some(error) if report.findings.is_empty() => Err(error),
            Some(error) => {
                report
                    .findings
                    .push(Finding::explained(format!("the check is incomplete: {error}")));
                Ok(report)
            }
        }
    }
}

impl Finding {
    /// A problem that only a backup repairs.
    pub(in crate::journal) fn of_damage(problem: String) -> Self {
        Self { problem, remedy: RESTORE_REMEDY }
    }

    /// A problem whose text has its remedy.
    pub(in crate::journal) fn explained(problem: String) -> Self {
        Self { problem, remedy: "" }
    }
}

impl CheckReport {
    /// The report of a journal that cannot be read.
    pub(in crate::journal) fn of_unreadable(finding: Finding) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }

    fn compare_counts(&mut self, stored: &Counts) {
        let Counts { states, forward_queue, quarantine_bytes } = &self.counts;
        if stored.states != *states
            || stored.forward_queue.waiting != forward_queue.waiting
            || stored.quarantine_bytes != *quarantine_bytes
        {
            self.add(
                "the stored counts of changes, forwards or quarantined bytes are wrong".into(),
            );
        }
    }

    pub(in crate::journal) fn add(&mut self, problem: String) {
        self.findings.push(Finding::of_damage(problem));
    }

    /// Adds a finding for a row, unless there are many of the kind.
    fn add_row(&mut self, found: &mut usize, problem: impl FnOnce() -> String) {
        *found += 1;
        if *found <= MAX_FINDINGS {
            self.add(problem());
        }
    }

    /// Adds a finding for the records that have none of their own.
    fn add_rest(&mut self, found: usize, name: &str) {
        let rest = found.saturating_sub(MAX_FINDINGS);
        if rest > 0 {
            self.add(format!("{rest} more records of this kind cannot be decoded: {name}"));
        }
    }

    fn check_rule(
        &mut self,
        source: &dyn Source,
        Rule { problem, sql }: &Rule,
    ) -> Result<(), TransferError> {
        source.stream(sql, &mut |row| {
            let count: u64 = row.get(0)?;
            if count > 0 {
                // A key of another type has no number.
                let first = row.get::<i64>(1).map_or_else(
                    |_| String::new(),
                    |first| format!(", the first one has the number {first}"),
                );
                self.add(format!("{problem}: {count}{first}"));
            }
            Ok(())
        })
    }

    fn check_types(&mut self, source: &dyn Source, table: &Table) -> Result<(), TransferError> {
        let (mut number, mut invalid) = (0, 0);
        source.stream(&table.select_stored(), &mut |row| {
            number += 1;
            for problem in table.values_of_other_types(row, number) {
                self.add_row(&mut invalid, || problem);
            }
            Ok(())
        })?;
        self.add_rest(invalid, &format!("values of the table {}", table.name));
        Ok(())
    }

    /// Checks that each event can be decoded, and that no position is missing since the last one that was removed or
    /// skipped.
    fn check_events(&mut self, source: &dyn Source) -> Result<(), TransferError> {
        self.last_position = source.last_position()?;
        let base = meta::consecutive_from(source.database())?;
        let (mut count, mut consecutive, mut last, mut invalid) = (0_u64, 0_u64, 0_u64, 0);
        source.stream("SELECT position, kind, body FROM event ORDER BY position", &mut |row| {
            last = row.get(0)?;
            count += 1;
            consecutive += u64::from(last > base);
            if !is_valid_event(row).unwrap_or(false) {
                self.add_row(&mut invalid, || format!("the event {last} cannot be decoded"));
            }
            Ok(())
        })?;
        self.add_rest(invalid, "the event");
        self.rows.insert("event".into(), count);
        if last > base && last - base != consecutive {
            let missing = (last - base).saturating_sub(consecutive);
            self.add(format!(
                "{missing} events between the positions {base} and {last} are missing"
            ));
        }
        let end = last.max(base);
        if end < self.last_position {
            let last_position = self.last_position;
            self.add(format!(
                "the events after the position {end} are missing: the journal has reached {last_position}"
            ));
        }
        if last > self.last_position {
            let end = self.last_position;
            self.add(format!("there are events up to {last}, after the last position {end}"));
        }
        Ok(())
    }

    /// Checks that each change can be decoded, and that its state and counts are those of its rows.
    fn check_changes(&mut self, source: &dyn Source) -> Result<(), TransferError> {
        let (mut count, mut found) = (0, [0, 0]);
        let mut after = 0;
        // A part of the changes at a time, so that the memory is bounded.
        while let Some(last) = last_of_part(source.database(), after)? {
            count += self.check_part_of_changes(source, after, last, &mut found)?;
            after = last;
        }
        self.add_rest(found[0], "the change");
        self.rows.insert("change".into(), count);
        Ok(())
    }

    /// Checks the changes with ids from `after` to `last`, and returns their number. `found` counts the changes that cannot
    /// be decoded, and those with wrong values.
    fn check_part_of_changes(
        &mut self,
        source: &dyn Source,
        after: i64,
        last: i64,
        [invalid, wrong]: &mut [usize; 2],
    ) -> Result<u64, TransferError> {
        let mut decided = decided_devices(source, after, last)?;
        let mut count = 0;
        let sql = format!(
            "SELECT id, trimmed, state, device_states, device_count, record, status FROM change
             WHERE id > {after} AND id <= {last}"
        );
        source.stream(&sql, &mut |row| {
            count += 1;
            let id: i64 = row.get(0)?;
            let decided = decided.remove(&id).unwrap_or_default();
            if self.check_change(row, decided, wrong).is_err() {
                self.add_row(invalid, || format!("the change {id} cannot be decoded"));
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// Checks a change with the columns of [`check_part_of_changes`](Self::check_part_of_changes). Fails if it cannot be
    /// decoded.
    fn check_change(
        &mut self,
        row: &dyn Row,
        decided: DeviceCounts,
        wrong: &mut usize,
    ) -> sql::Result<()> {
        if row.get::<i64>(1)? != 0 {
            return Ok(());
        }
        let change = changes::decode_stored(row, 5)?;
        let (state, Json(states)): (i64, Json<DeviceStates>) = (row.get(2)?, row.get(3)?);
        let states = states.counts(row.get(4)?);
        self.counts.states.add(change.state, 1);
        let (change_id, counts) = (change.change_id, change.counts);
        if state != state_code(change.state) {
            self.add_row(wrong, || {
                format!("the state of the change {change_id} is stored twice, and differs")
            });
        }
        if states != counts || !is_consistent(counts, decided) {
            self.add_row(wrong, || {
                format!("the counts of the change {change_id} are not those of its results")
            });
        }
        Ok(())
    }
}

/// Returns false, or fails, for an event whose record cannot be decoded.
fn is_valid_event(row: &dyn Row) -> sql::Result<bool> {
    let (kind, body) = (row.get(1)?, row.get(2)?);
    Ok(match events::is_state(kind) {
        true => StatusRecord::from_bytes(body).is_ok(),
        false => decode_result(body).is_ok(),
    })
}

/// Returns the last id of the next changes after one, at most [`CHANGES_OF_PART`]; `None` if there are no more.
fn last_of_part(db: &dyn Database, after: i64) -> Result<Option<i64>, TransferError> {
    let sql =
        "SELECT max(id) FROM (SELECT id FROM change WHERE id > ? ORDER BY id LIMIT ?) AS part";
    Ok(db.get(sql, &values![after, CHANGES_OF_PART], |row| row.get(0))?)
}

/// Returns the number of devices of each change that a final result has decided, by outcome.
fn decided_devices(
    source: &dyn Source,
    after: i64,
    last: i64,
) -> Result<BTreeMap<i64, DeviceCounts>, TransferError> {
    let mut decided: BTreeMap<i64, DeviceCounts> = BTreeMap::new();
    let sql = format!(
        "SELECT d.id >> 20, e.body FROM device_state d JOIN event e ON e.position = d.decided_by
         WHERE d.precedence IS NOT NULL AND d.id >= (CAST({after} AS BIGINT) + 1) << 20
           AND d.id < (CAST({last} AS BIGINT) + 1) << 20"
    );
    source.stream(&sql, &mut |row| {
        let counts = decided.entry(row.get(0)?).or_default();
        let result = row.get(1).ok().and_then(|body| decode_result(body).ok());
        match result.map(|result| result.outcome) {
            Some(Outcome::Succeeded) => counts.succeeded += 1,
            Some(Outcome::Failed) => counts.failed += 1,
            // An event that cannot be decoded is a finding already.
            Some(Outcome::Interim) | None => {}
        }
        Ok(())
    })?;
    Ok(decided)
}

/// True if a change can have these counts, which include unmatched results, with these decided devices.
fn is_consistent(counts: DeviceCounts, decided: DeviceCounts) -> bool {
    let sum = |numbers: &[u32]| -> u64 { numbers.iter().copied().map(u64::from).sum() };
    sum(&[counts.succeeded, counts.failed])
        == sum(&[decided.succeeded, decided.failed, counts.unmatched])
        && counts.succeeded >= decided.succeeded
        && counts.failed >= decided.failed
}

#[cfg(test)]
mod tests;
