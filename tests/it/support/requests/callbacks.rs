//! Callbacks as ThingSpace sends them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::devices::{eid, iccid, meid};
use crate::support::http::{http_client, post};

/// The callback of one profile, as in ThingSpace's own example.
pub fn esim_callback(request_id: &str, number: usize) -> Value {
    let ids = json!([
        {"id": eid(number), "kind": "Eid"},
        {"id": format!("99000000{number:07}"), "kind": "Imei"},
        {"id": format!("1512{number:07}"), "kind": "msisdn"},
        {"id": iccid(number), "kind": "Iccid"},
    ]);
    json!({
        "requestId": request_id,
        "deviceIds": ids,
        "deviceResponse": {
            "deviceProfileResponse": {
                "deviceIdentifierCollection": ids,
                "state": "ACTIVE",
                "profileStatus": "ENABLE",
                "profileRole": "LOCAL",
            },
        },
        "status": "SUCCESS",
        "callbackCount": 1,
        "maxCallbackThreshold": 4,
    })
}

/// The callback of one profile whose change failed.
pub fn esim_failure(request_id: &str, number: usize) -> Value {
    json!({
        "requestId": request_id,
        "deviceIds": [{"id": iccid(number), "kind": "Iccid"}],
        "faultResponse": {
            "faultcode": "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
            "faultstring": "The device cannot be found.",
        },
        "status": "Failed",
    })
}

/// The callback of one 5G device, as in ThingSpace's own example: its identifier is of another
/// kind than the one in the request.
pub fn five_g_bi_callback(request_id: &str, mdn: &str) -> Value {
    json!({
        "username": "planted-callback-username",
        "password": "planted-callback-password",
        "requestId": request_id,
        "deviceIds": [{"id": mdn, "kind": "mdn"}],
        "deviceResponse": {
            "changeServicePlanResponse": {"effectiveDate": "5/31/2018 12:00:00 AM"},
        },
    })
}

/// The successful callback of one 5G device by its MEID.
pub fn five_g_bi_success(request_id: &str, number: usize) -> Value {
    callback(request_id, &[("meid", meid(number))], "Success")
}

/// A callback with these identifiers and this status, and nothing else.
pub fn callback(request_id: &str, ids: &[(&str, String)], status: &str) -> Value {
    let ids = ids.iter().map(|(kind, id)| json!({"kind": kind, "id": id}));
    let ids: Vec<Value> = ids.collect();
    json!({"requestId": request_id, "deviceIds": ids, "status": status})
}

/// Delivers a callback that the gateway must store as new.
pub async fn deliver(url: &str, callback: &Value) {
    let response = post(url, callback.to_string()).await;
    assert_eq!(response, (200, json!({"stored": "new"})));
}

/// Sends one eSIM callback for each number over several connections. Returns the numbers that were
/// acknowledged with 200, and counts them in `acknowledged` meanwhile.
pub async fn send_all(
    url: &str,
    request_id: &str,
    numbers: Vec<usize>,
    connections: usize,
    acknowledged: Arc<AtomicUsize>,
) -> Vec<usize> {
    let client = http_client();
    let next = Arc::new(AtomicUsize::new(0));
    let numbers = Arc::new(numbers);
    let workers = (0..connections).map(|_| {
        let (client, next, numbers) = (client.clone(), Arc::clone(&next), Arc::clone(&numbers));
        let (url, request_id) = (url.to_owned(), request_id.to_owned());
        let acknowledged = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            let mut own = Vec::new();
            while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let body = esim_callback(&request_id, *number).to_string();
                // A broken connection acknowledges nothing.
                let Ok(response) = client.post(&url).body(body).send().await else {
                    return own;
                };
                if response.status() == 200 {
                    own.push(*number);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            own
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("a sender"));
    }
    all
}
