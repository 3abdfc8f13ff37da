//! The sandbox's ledger: what was really executed, and which callbacks were acknowledged.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ledger {
    pub devices_pending: usize,
    pub changes: Vec<Executed>,
}

/// A change that ThingSpace executed.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Executed {
    pub request_id: String,
    #[serde(default)]
    pub device_identifiers: Vec<Vec<Identifier>>,
    #[serde(default)]
    pub device_results: Vec<Became>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Identifier {
    pub id: String,
    pub kind: String,
}

/// What became of one device.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Became {
    pub outcome: String,
    pub executed_count: u64,
    pub tries: Vec<Try>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Try {
    pub message: String,
    pub answer: Option<u16>,
}

// === impl Ledger ===

impl Ledger {
    pub async fn read(sandbox: &str, identifiers: bool) -> Self {
        let url = format!("{sandbox}/sandbox/ledger?identifiers={identifiers}");
        let answer = reqwest::get(url).await.expect("the sandbox answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("a ledger")
    }
}

// === impl Executed ===

impl Executed {
    /// The devices by the name that the suite gives them, each with what became of it.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &Became)> {
        let named = self.device_identifiers.iter().map(|all| {
            let named = all
                .iter()
                .find(|one| one.kind.eq_ignore_ascii_case("iccid"));
            named.map_or("", |one| one.id.as_str())
        });
        named.zip(&self.device_results)
    }
}

// === impl Became ===

impl Became {
    /// Whether a callback with its end was answered 200.
    pub fn acknowledged(&self) -> bool {
        let end = |one: &Try| one.message == "final" && one.answer == Some(200);
        self.tries.iter().any(end)
    }
}
