//! Summary of the demo.

use serde::Serialize;

/// Summary of the demo; as JSON, the last line of its output.
#[derive(Debug, Serialize)]
pub(super) struct DemoReport {
    pub(super) changes: Vec<ChangeReport>,
    pub(super) elapsed_ms: u128,
}

/// Summary of one change.
#[derive(Debug, Serialize)]
pub(super) struct ChangeReport {
    pub(super) change_type: &'static str,
    pub(super) change_id: String,
    pub(super) request_ids: Vec<String>,
    pub(super) devices: u32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Results that the watch delivered more than once.
    pub(super) duplicates: usize,
    /// Devices without a result.
    pub(super) missing: usize,
}

// === impl DemoReport ===

impl DemoReport {
    /// True if each device has exactly one result.
    pub(super) fn is_complete(&self) -> bool {
        let complete = |change: &ChangeReport| change.duplicates == 0 && change.missing == 0;
        self.changes.iter().all(complete)
    }

    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "\n{:27}  {:36}  {:>7}  {:>9}  {:>6}  {:>10}  {:>7}\n",
            "CHANGE TYPE", "CHANGE", "DEVICES", "SUCCEEDED", "FAILED", "DUPLICATES", "MISSING"
        );
        for change in &self.changes {
            table.push_str(&format!(
                "{:27}  {:36}  {:>7}  {:>9}  {:>6}  {:>10}  {:>7}\n",
                change.change_type,
                change.change_id,
                change.devices,
                change.succeeded,
                change.failed,
                change.duplicates,
                change.missing
            ));
        }
        table
    }
}
