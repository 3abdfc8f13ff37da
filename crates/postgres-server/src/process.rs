//! Processes and signals.

use std::fs;

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::error::{Error, Result};

/// A process. The time of its start distinguishes it from a later process with the same id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: i32,
    parent: i32,
    started: u64,
    state: char,
}

impl Process {
    /// Returns a process that has not ended. A zombie has ended.
    pub(crate) fn with_id(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program is in parentheses and may contain any character.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22 of the file; this iterator has returned field 4 last.
        let started = fields.nth(17)?.parse().ok()?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { id, parent, started, state })
    }

    /// The processes whose parent is the process with this id.
    pub(crate) fn children_of(parent: i32) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| Self::with_id(entry.file_name().to_str()?.parse().ok()?))
            .filter(|process| process.parent == parent)
            .collect()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.current().is_some()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.current().is_none_or(|process| process.state == 'T')
    }

    /// Sends a signal unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match signal::kill(Pid::from_raw(self.id), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(Error::new(format!("cannot send {signal} to process {}: {error}", self.id)))
            }
        }
    }

    fn current(&self) -> Option<Self> {
        Self::with_id(self.id).filter(|process| process.started == self.started)
    }
}
