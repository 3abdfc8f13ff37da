//! The sandbox's ledger: what was really executed, and which callbacks were acknowledged.

use serde::Deserialize;

use super::sandbox::FOREIGN_PLAN;

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

/// What became of one device.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LedgerDevice {
    pub outcome: String,
    /// Whether its final callback is never sent.
    #[serde(default)]
    pub lost: bool,
    pub tries: Vec<CallbackAttempt>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct CallbackAttempt {
    pub message: String,
    pub answer: Option<u16>,
}

/// The kinds by which a device is told from others, best first. An EID may have several profiles.
const NAMES: [&str; 2] = ["iccid", "meid"];

/// The name of a device among its identifiers.
pub fn device_key<'i>(ids: impl Iterator<Item = (&'i str, &'i str)> + Clone) -> Option<&'i str> {
    NAMES.iter().find_map(|name| {
        let mut named = ids
            .clone()
            .filter(|(kind, _)| kind.eq_ignore_ascii_case(name));
        named.next().map(|(_, id)| id)
    })
}

// === impl Ledger ===

impl Ledger {
    pub async fn fetch(sandbox: &str, identifiers: bool) -> Self {
        let url = format!("{sandbox}/sandbox/ledger?identifiers={identifiers}");
        let answer = reqwest::get(url).await.expect("the sandbox answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("a ledger")
    }

    /// Callbacks that were sent, repetitions included.
    pub fn callbacks(&self) -> usize {
        let devices = self.changes.iter().flat_map(|one| &one.device_results);
        devices.map(|device| device.tries.len()).sum()
    }

    /// What was executed for orders, strangers left out.
    pub fn own(&self) -> impl Iterator<Item = &LedgerChange> {
        let executed = self.changes.iter();
        executed.filter(|executed| executed.service_plan != FOREIGN_PLAN)
    }
}

// === impl Executed ===

impl LedgerChange {
    /// The devices by the name that the suite gives them, each with what became of it.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &LedgerDevice)> {
        let named = self.device_identifiers.iter().map(|all| {
            let ids = all.iter().map(|one| (one.kind.as_str(), one.id.as_str()));
            device_key(ids).unwrap_or_default()
        });
        named.zip(&self.device_results)
    }
}

// === impl Became ===

impl LedgerDevice {
    /// Whether a callback with its end was answered 200.
    pub fn is_acknowledged(&self) -> bool {
        self.tries
            .iter()
            .any(CallbackAttempt::is_acknowledged_final)
    }
}

// === impl Try ===

impl CallbackAttempt {
    pub fn is_acknowledged_final(&self) -> bool {
        self.message == "final" && self.answer == Some(200)
    }
}
