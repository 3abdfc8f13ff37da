//! Sends callbacks as ThingSpace would.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The callback of one eSIM profile.
pub fn esim_callback(request_id: &str, number: usize) -> String {
    let iccid = iccid(number);
    format!(
        r#"{{"requestId":"{request_id}","deviceIds":[{{"id":"{}","kind":"Eid"}},{{"id":"{iccid}","kind":"Iccid"}}],"deviceResponse":{{"deviceProfileResponse":{{"deviceIdentifierCollection":[{{"id":"{iccid}","kind":"Iccid"}}],"state":"ACTIVE","profileStatus":"ENABLE","profileRole":"LOCAL"}}}},"status":"SUCCESS","callbackCount":1,"maxCallbackThreshold":4}}"#,
        eid(number)
    )
}

pub fn iccid(number: usize) -> String {
    format!("8914800000{number:010}")
}

pub fn eid(number: usize) -> String {
    format!("8904903200000100000000{number:010}")
}

/// Sends the callbacks `numbers` on so many connections at a time; answers with
/// those that were acknowledged with 200. `acknowledged` counts them as they
/// are.
pub async fn send(
    url: &str,
    request_id: &str,
    numbers: Vec<usize>,
    connections: usize,
    acknowledged: Arc<AtomicUsize>,
) -> Vec<usize> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let next = Arc::new(AtomicUsize::new(0));
    let numbers = Arc::new(numbers);
    let workers = (0..connections).map(|_| {
        let (client, next, numbers) = (client.clone(), Arc::clone(&next), Arc::clone(&numbers));
        let (url, request_id) = (url.to_owned(), request_id.to_owned());
        let acknowledged = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let body = esim_callback(&request_id, *number);
                // A connection that breaks is an answer that never came.
                let Ok(response) = client.post(&url).body(body).send().await else {
                    return mine;
                };
                if response.status() == 200 {
                    mine.push(*number);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            mine
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("a sender"));
    }
    all
}
