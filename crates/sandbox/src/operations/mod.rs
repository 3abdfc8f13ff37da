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

/// All operations.
pub(crate) static OPERATIONS: &[&Operation] =
    &[&esim_plan::ESIM_PLAN, &five_g_bi_plan::FIVE_G_BI_PLAN, &service_plan::SERVICE_PLAN];

/// A method and a path, and the operations that share them.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) method: MethodFilter,
    pub(crate) path: &'static str,
    first: &'static Operation,
    others: Vec<&'static Operation>,
}

/// Returns the endpoints of all operations.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for &operation in OPERATIONS {
        for &(method, path) in operation.endpoints {
            let shared = endpoints
                .iter_mut()
                .find(|endpoint| endpoint.method == method && endpoint.path == path);
            match shared {
                Some(endpoint) => endpoint.others.push(operation),
                None => {
                    endpoints.push(Endpoint { method, path, first: operation, others: Vec::new() })
                }
            }
        }
    }
    endpoints
}

impl Endpoint {
    /// Selects the operation of a request by the member of its body that lists the devices. Returns
    /// the first operation if none has such a member: it reports the error.
    pub(crate) fn select(&self, body: &[u8]) -> &'static Operation {
        if self.others.is_empty() {
            return self.first;
        }
        let members: HashMap<String, IgnoredAny> = serde_json::from_slice(body).unwrap_or_default();
        let mut operations = std::iter::once(self.first).chain(self.others.iter().copied());
        operations
            .find(|operation| members.contains_key(operation.device_list_member))
            .unwrap_or(self.first)
    }
}
