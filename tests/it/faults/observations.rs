//! The observations of a run, and the checks that a later start of a gateway must pass.

use std::collections::HashMap;

use thingspace_gateway::proto::{ChangeState, DeviceResult};
use tonic::Code;

use super::client_record::ClientRecord;
use crate::support::{
    gateway::{Client, Setup, UNREACHABLE_URL},
    requests::{get_by_key, stored_results},
};

/// The observations of all clients, and all results.
pub struct Observations {
    pub client_records: Vec<ClientRecord>,
    /// Results of each request ID, including foreign requests, in the order of the stream.
    pub results: HashMap<String, Vec<DeviceResult>>,
}

impl Observations {
    /// Checks that no result was removed.
    pub async fn check_results(
        &self,
        client: &mut Client,
        when: &str,
        violations: &mut Vec<String>,
    ) {
        for (request, results) in &self.results {
            let found = stored_results(client, request).await.len();
            if found < results.len() {
                violations
                    .push(format!("{when}: {request} has {found} results of {}", results.len()));
            }
        }
    }

    /// Checks that each key still has its change, and that a repeated call returns it.
    pub async fn check_repeated_calls(
        &self,
        client: &mut Client,
        when: &str,
        violations: &mut Vec<String>,
    ) {
        for client_record in &self.client_records {
            let Some(change) = &client_record.change else { continue };
            let key = &client_record.planned_change.key;
            match get_by_key(client, key).await {
                Ok(again) if again.change_id == change.change_id => {}
                other => violations.push(format!("{when}: {key} is {other:?}")),
            }
            // The ledger shows whether the call sent anything.
            if change.state() != ChangeState::NotSent
                && let Err(status) = client_record.planned_change.call(client, None).await
                && status.code() == Code::NotFound
            {
                violations.push(format!("{when}: {key}: {status}"));
            }
        }
    }
}

/// Checks that a gateway does not start with another ThingSpace.
pub async fn check_other_thingspace(setup: &Setup, violations: &mut Vec<String>) {
    let other = setup.clone().set("thingspace.base_url", UNREACHABLE_URL);
    check_start_rejected("another ThingSpace", 78, &other, violations).await;
}

/// Checks that a gateway does not start with these settings.
pub async fn check_start_rejected(
    what: &str,
    code: i32,
    setup: &Setup,
    violations: &mut Vec<String>,
) {
    match setup.try_start().await {
        Ok(mut gateway) => {
            gateway.kill().await;
            violations.push(format!("{what}: the gateway starts"));
        }
        Err(exit) if exit.code == Some(code) => {}
        Err(exit) => violations.push(format!("{what}: {exit:?}")),
    }
}
