//! The sandbox's ledger: the executed changes and the acknowledged callbacks.

use serde::Deserialize;

use super::http::http_get_json;

/// The service plan of all foreign requests. It identifies them in the ledger.
pub const FOREIGN_PLAN: &str = "Plan of a foreign request";

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ledger {
    pub devices_pending: usize,
    pub log_ins_refused: u64,
    pub locked_users: usize,
    pub changes: Vec<LedgerChange>,
}

/// A change that ThingSpace executed.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LedgerChange {
    pub request_id: String,
    #[serde(default)]
    pub service_plan: String,
    #[serde(default)]
    pub device_identifiers: Vec<Vec<Identifier>>,
    #[serde(default)]
    pub device_results: Vec<LedgerDevice>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Identifier {
    pub id: String,
    pub kind: String,
}

/// The outcome of one device.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LedgerDevice {
    pub outcome: String,
    /// True if its final callback is never sent.
    #[serde(default)]
    pub lost: bool,
    #[serde(rename = "tries")]
    pub attempts: Vec<CallbackAttempt>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct CallbackAttempt {
    pub message: String,
    #[serde(rename = "answer")]
    pub response_status: Option<u16>,
}

/// Kinds that identify a device, best first. An EID can have several profiles.
const IDENTIFYING_KINDS: [&str; 2] = ["iccid", "meid"];

/// Returns the best identifier of a device.
pub fn device_key<'i>(ids: impl Iterator<Item = (&'i str, &'i str)> + Clone) -> Option<&'i str> {
    IDENTIFYING_KINDS.iter().find_map(|identifying| {
        let mut matching = ids.clone().filter(|(kind, _)| kind.eq_ignore_ascii_case(identifying));
        matching.next().map(|(_, id)| id)
    })
}

// === impl Ledger ===

impl Ledger {
    pub async fn fetch(sandbox: &str, include_devices: bool) -> Self {
        let url = format!("{sandbox}/sandbox/ledger?identifiers={include_devices}");
        serde_json::from_value(http_get_json(&url).await).expect("a ledger")
    }

    /// Number of sent callbacks, including repetitions.
    pub fn callbacks(&self) -> usize {
        let devices = self.changes.iter().flat_map(|one| &one.device_results);
        devices.map(|device| device.attempts.len()).sum()
    }

    /// Executed changes without those of foreign requests.
    pub fn own(&self) -> impl Iterator<Item = &LedgerChange> {
        let changes = self.changes.iter();
        changes.filter(|change| change.service_plan != FOREIGN_PLAN)
    }
}

// === impl LedgerChange ===

impl LedgerChange {
    /// Returns each device with its outcome.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &LedgerDevice)> {
        let named = self.device_identifiers.iter().map(|all| {
            let ids = all.iter().map(|one| (one.kind.as_str(), one.id.as_str()));
            device_key(ids).unwrap_or_default()
        });
        named.zip(&self.device_results)
    }
}

// === impl LedgerDevice ===

impl LedgerDevice {
    /// True if a final callback was acknowledged with 200.
    pub fn is_acknowledged(&self) -> bool {
        self.attempts.iter().any(CallbackAttempt::is_acknowledged_final)
    }
}

// === impl CallbackAttempt ===

impl CallbackAttempt {
    pub fn is_acknowledged_final(&self) -> bool {
        self.message == "final" && self.response_status == Some(200)
    }
}
