//! The simulated operations, one file each.

mod carrier_service;
pub(crate) mod esim_plan;
pub(crate) mod five_g_bi_plan;
pub(crate) mod operation;
mod service_plan;

use std::collections::HashMap;

use axum::routing::MethodFilter;
use serde::de::IgnoredAny;

use operation::Operation;

pub(crate) static OPERATIONS: &[&Operation] =
    &[&esim_plan::ESIM_PLAN, &five_g_bi_plan::FIVE_G_BI_PLAN, &service_plan::SERVICE_PLAN];

pub(crate) type Endpoint = (MethodFilter, &'static str);

pub(crate) fn endpoints() -> Vec<(Endpoint, Vec<&'static Operation>)> {
    let mut endpoints: Vec<(Endpoint, Vec<_>)> = Vec::new();
    for &operation in OPERATIONS {
        for endpoint in operation.endpoints {
            match endpoints.iter_mut().find(|(other, _)| other == endpoint) {
                Some((_, operations)) => operations.push(operation),
                None => endpoints.push((*endpoint, vec![operation])),
            }
        }
    }
    endpoints
}

/// Selects one of the operations of an endpoint by the member of a body that lists the devices.
/// Returns the first operation if none has such a member: it reports the error.
pub(crate) fn select(operations: &[&'static Operation], body: &[u8]) -> Option<&'static Operation> {
    if let [only] = operations {
        return Some(only);
    }
    let members: HashMap<String, IgnoredAny> = serde_json::from_slice(body).unwrap_or_default();
    operations
        .iter()
        .find(|operation| members.contains_key(operation.device_list_member))
        .or(operations.first())
        .copied()
}
