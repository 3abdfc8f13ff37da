//! Results of one change, across all streams of its watch.

use std::{collections::HashSet, error::Error};

use crate::proto::{Change, DeviceResult, Outcome};

/// Prints a line, or nothing.
pub(super) type Print = fn(&str) -> Result<(), Box<dyn Error>>;

/// Number of results that are shown one by one, for each stream.
const SHOWN: usize = 4;

/// Results of one change.
#[derive(Default)]
pub(super) struct Results {
    /// Token of the last message.
    pub(super) resume_token: String,
    /// The change in its final state, once the watch has delivered it.
    pub(super) finished: Option<Change>,
    /// Results of a device that already had one.
    pub(super) repeated: usize,
    devices: HashSet<i32>,
    stream: StreamOutput,
}

/// Output of the current stream.
#[derive(Default)]
struct StreamOutput {
    shown: usize,
    hidden: usize,
    has_shown_failure: bool,
}

// === impl Results ===

impl Results {
    /// Number of devices with a result.
    pub(super) fn count(&self) -> usize {
        self.devices.len()
    }

    /// Adds a result, and shows it if it is among the first or the first failure.
    pub(super) fn add(
        &mut self,
        result: &DeviceResult,
        print: Print,
    ) -> Result<(), Box<dyn Error>> {
        let is_new = result.device_index.is_some_and(|index| self.devices.insert(index));
        self.repeated += usize::from(!is_new);
        let is_failure = result.outcome() == Outcome::Failed;
        if self.stream.shown >= SHOWN && (!is_failure || self.stream.has_shown_failure) {
            self.stream.hidden += 1;
            return Ok(());
        }
        self.stream.shown += 1;
        self.stream.has_shown_failure |= is_failure;
        let device = &result.client_reference;
        let outcome = result.outcome().as_str_name().trim_start_matches("OUTCOME_");
        let fault = result.fault.as_ref().map_or("", |fault| &fault.code);
        print(format!("  {device:9}  {outcome:9}  {fault}").trim_end())
    }

    /// Shows the number of results of this stream that were not shown one by one.
    pub(super) fn end_stream(&mut self, print: Print) -> Result<(), Box<dyn Error>> {
        let hidden = std::mem::take(&mut self.stream).hidden;
        if hidden == 0 {
            return Ok(());
        }
        print(&format!("  … and {hidden} more"))
    }
}
