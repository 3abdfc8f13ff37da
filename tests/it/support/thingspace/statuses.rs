//! ThingSpace's own lists of the devices of a request.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Answer, STATUS, ThingSpace};
use crate::support::{gateway::PATIENCE, sender::iccid};

/// ThingSpace's status of a request for these profiles.
pub fn lists(numbers: impl IntoIterator<Item = usize>) -> Answer {
    let device =
        |number| json!({"ids": [{"kind": "iccid", "id": iccid(number)}], "status": "Pending"});
    let devices: Vec<Value> = numbers.into_iter().map(device).collect();
    let status = json!({"requestId": "r", "status": "Pending", "subRequests": devices});
    let headers = vec![("content-type", "application/json")];
    Answer::Says(200, headers, status.to_string())
}

/// Waits until ThingSpace was asked about the devices of a request so many times in all.
pub async fn asked(thingspace: &ThingSpace, request: &str, times: usize) {
    let path = format!("{STATUS}0000123456-00001/requests/{request}/status");
    let often = async {
        while thingspace.seen(&path).len() < times {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, often).await.expect("it asks");
}
