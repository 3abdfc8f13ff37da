//! The types of changes.

use serde::{Deserialize, Serialize};

/// The operation that a change carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeType {
    /// Changes the service plan of eSIM profiles.
    EsimPlan,
    /// Changes the service plan of 5G Business Internet devices.
    FiveGBiPlan,
}

impl ChangeType {
    /// All types.
    pub const ALL: [Self; 2] = [Self::EsimPlan, Self::FiveGBiPlan];
}
