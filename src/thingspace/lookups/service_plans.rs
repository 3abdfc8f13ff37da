//! A service plan of an account.

use serde_json::Value;

use crate::thingspace::json::{member_items, member_short_text};

/// Maximum number of attributes of a plan.
const MAX_ATTRIBUTES: usize = 50;

/// A service plan. Missing texts are empty; texts have at most 200 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePlanInfo {
    /// The name, which the eSIM operation takes.
    pub name: String,
    /// The code, which the 5G Business Internet operation takes.
    pub code: String,
    /// The carrier's code.
    pub carrier_service_plan_code: String,
    /// The data allowance in kilobytes.
    pub size_kb: Option<i64>,
    /// Further attributes as key and value, at most 50.
    pub extended_attributes: Vec<(String, String)>,
}

impl ServicePlanInfo {
    pub(crate) fn parse(plan: &Value) -> Self {
        let text = |name| member_short_text(plan, name).unwrap_or_default();
        let parse_attribute = |attribute| {
            let value = member_short_text(attribute, "value").unwrap_or_default();
            Some((member_short_text(attribute, "key")?, value))
        };
        Self {
            name: text("name"),
            code: text("code"),
            carrier_service_plan_code: text("carrierServicePlanCode"),
            size_kb: text("sizeKb").parse().ok(),
            extended_attributes: member_items(plan, "extendedAttributes")
                .take(MAX_ATTRIBUTES)
                .filter_map(parse_attribute)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
