//! The settings of the server that decide which failures a commit survives.

use std::fmt;

use parking_lot::Mutex;

use crate::journal::{
    Durability,
    sql::{Database, Result},
};

/// The settings of the server, as they apply to the connection that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerDurability {
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    synchronous_standby_names: String,
}

/// Checks the durability at each connection that writes: the server may be another one after a failover.
pub(super) struct DurabilityCheck {
    allow_relaxed: bool,
    found: Mutex<Option<ServerDurability>>,
}

impl DurabilityCheck {
    pub(super) fn new(allow_relaxed: bool) -> Self {
        Self { allow_relaxed, found: Mutex::default() }
    }

    /// Returns the settings of the last check.
    pub(super) fn found(&self) -> Option<ServerDurability> {
        self.found.lock().clone()
    }

    /// Reads the settings. Returns them as an error if they are not sufficient.
    pub(super) fn check(&self, db: &dyn Database) -> Result<Result<(), String>> {
        let found = ServerDurability::load(db)?;
        let text = found.to_string();
        let is_sufficient = self.allow_relaxed || found.level() > Durability::Relaxed;
        if self.found.lock().replace(found.clone()).as_ref() != Some(&found) {
            tracing::info!(level = ?found.level(), settings = text, "durability of the journal's database");
        }
        Ok(if is_sufficient { Ok(()) } else { Err(text) })
    }
}

impl ServerDurability {
    pub(super) fn load(db: &dyn Database) -> Result<Self> {
        let sql = "SELECT current_setting('fsync'), current_setting('full_page_writes'),
             current_setting('synchronous_commit'), current_setting('synchronous_standby_names')";
        db.get(sql, &[], |row| {
            Ok(Self {
                fsync: row.get(0)?,
                full_page_writes: row.get(1)?,
                synchronous_commit: row.get(2)?,
                synchronous_standby_names: row.get(3)?,
            })
        })
    }

    /// Returns the failures that a commit survives.
    pub(super) fn level(&self) -> Durability {
        let is_synced = self.fsync == "on" && self.full_page_writes == "on";
        let has_standby = !self.synchronous_standby_names.is_empty();
        match self.synchronous_commit.as_str() {
            _ if !is_synced => Durability::Relaxed,
            "on" | "remote_apply" if has_standby => Durability::Replicated,
            "on" | "remote_apply" | "remote_write" | "local" => Durability::Synced,
            _ => Durability::Relaxed,
        }
    }
}

impl fmt::Display for ServerDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fsync, full_page_writes, synchronous_commit, synchronous_standby_names } = self;
        write!(
            f,
            "fsync={fsync} full_page_writes={full_page_writes} \
             synchronous_commit={synchronous_commit} \
             synchronous_standby_names='{synchronous_standby_names}'"
        )
    }
}
