//! ThingSpace's own lists of the devices of a request.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{FakeResponse, FakeThingSpace, REQUEST_STATUS_PREFIX};
use crate::support::{gateway::TEST_TIMEOUT, sender::iccid};

/// ThingSpace's status of a request for these profiles.
pub fn lists(numbers: impl IntoIterator<Item = usize>) -> FakeResponse {
    let device =
        |number| json!({"ids": [{"kind": "iccid", "id": iccid(number)}], "status": "Pending"});
    let devices: Vec<Value> = numbers.into_iter().map(device).collect();
    let status = json!({"requestId": "r", "status": "Pending", "subRequests": devices});
    let headers = vec![("content-type", "application/json")];
    FakeResponse::Custom(200, headers, status.to_string())
}

/// Waits until ThingSpace was asked about the devices of a request so many times in all.
pub async fn wait_for_status_requests(thingspace: &FakeThingSpace, request: &str, times: usize) {
    let path = format!("{REQUEST_STATUS_PREFIX}0000123456-00001/requests/{request}/status");
    let often = async {
        while thingspace.requests_to(&path).len() < times {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, often).await.expect("it asks");
}
