//! Recorded requests and held calls.

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;

use super::responses::FakeResponse;
use crate::support::wait::in_time;

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A call without a response until the test releases it.
pub struct HeldCall {
    pub(super) arrived: Option<oneshot::Receiver<RecordedRequest>>,
    pub(super) response: oneshot::Sender<FakeResponse>,
}

// === impl HeldCall ===

impl HeldCall {
    /// Waits until the call has arrived.
    pub async fn arrived(&mut self) -> RecordedRequest {
        let arrived = self.arrived.take().expect("one call of arrived()");
        in_time(arrived).await.expect("the fake ThingSpace runs")
    }

    /// Sends the response.
    pub fn release(self, response: FakeResponse) {
        // Fails if the gateway was killed meanwhile.
        let _sent = self.response.send(response);
    }
}

// === impl RecordedRequest ===

impl RecordedRequest {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().expect(name).to_str().expect("text");
        assert!(values.next().is_none(), "{name} occurs once");
        value
    }
}
