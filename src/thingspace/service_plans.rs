//! The service plans of an account ("Retrieve service plans", `GET /m2m/v1/plans/{accountName}`).

use reqwest::Method;
use serde_json::{Map, Value};

use super::{LookupError, ThingSpace, error_body::get, lookups::plain};
use crate::domain::newtypes::AccountName;

const PATH: &str = "/m2m/v1/plans/{account}";
/// Plans of one account that are kept, and attributes of one plan.
const MAX_PLANS: usize = 2_000;
const MAX_ATTRIBUTES: usize = 50;

/// A service plan. Texts that ThingSpace does not send are empty.
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
    /// Further attributes, by name.
    pub extended_attributes: Vec<(String, String)>,
}

// === impl ThingSpace ===

impl ThingSpace {
    /// The service plans of an account, in ThingSpace's order.
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn service_plans(
        &self,
        account: &AccountName,
    ) -> Result<Vec<ServicePlanInfo>, LookupError> {
        let mut url = self.endpoint.join("/m2m/v1/plans");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(account.as_str());
        }
        let build_request = || self.http.default_client.get(url.clone());
        let body = self
            .send_json_lookup(&Method::GET, PATH, &build_request)
            .await?;
        let Value::Array(plans) = body else {
            return Err(LookupError::NoAnswer("no list of plans".into()));
        };
        let plans = plans.iter().filter_map(Value::as_object);
        Ok(plans.take(MAX_PLANS).map(parse_plan).collect())
    }
}

fn parse_plan(plan: &Map<String, Value>) -> ServicePlanInfo {
    let text = |name| get(plan, name).and_then(plain).unwrap_or_default();
    let attributes = get(plan, "extendedAttributes").and_then(Value::as_array);
    let attributes = attributes.into_iter().flatten().take(MAX_ATTRIBUTES);
    ServicePlanInfo {
        name: text("name"),
        code: text("code"),
        carrier_service_plan_code: text("carrierServicePlanCode"),
        size_kb: text("sizeKb").parse().ok(),
        extended_attributes: attributes
            .filter_map(|attribute| {
                let members = attribute.as_object()?;
                let key = plain(get(members, "key")?)?;
                let value = get(members, "value").and_then(plain);
                Some((key, value.unwrap_or_default()))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_whatever_types_its_members_have() {
        let plan = serde_json::json!({
            "name": "2MSHR5GB", "CODE": "M2MSHR5GB", "sizeKb": "5120", "carrierServicePlanCode": 84638,
            "extendedAttributes": [{"key": "carrier", "value": "Verizon"}, {"value": "x"}, 7],
        });
        let expected = ServicePlanInfo {
            name: "2MSHR5GB".into(),
            code: "M2MSHR5GB".into(),
            carrier_service_plan_code: "84638".into(),
            size_kb: Some(5_120),
            extended_attributes: vec![("carrier".into(), "Verizon".into())],
        };
        assert_eq!(parse_plan(plan.as_object().unwrap()), expected);
        assert_eq!(parse_plan(&Map::new()), ServicePlanInfo::default());
    }
}
