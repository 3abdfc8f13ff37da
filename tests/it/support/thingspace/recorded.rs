//! The calls that a test sees, and those that wait for it.

use bytes::Bytes;
use http::HeaderMap;
use tokio::{sync::oneshot, time::timeout};

use super::{FakeResponse, TEST_TIMEOUT};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A call that waits for the test.
pub struct HeldCall {
    pub(super) arrived: Option<oneshot::Receiver<RecordedRequest>>,
    pub(super) answer: oneshot::Sender<FakeResponse>,
}

// === impl Held ===

impl HeldCall {
    /// Waits until the call is there.
    pub async fn arrived(&mut self) -> RecordedRequest {
        let arrived = self.arrived.take().expect("asked once");
        let seen = timeout(TEST_TIMEOUT, arrived)
            .await
            .expect("the call comes");
        seen.expect("it runs")
    }

    /// Lets it go on.
    pub fn release(self, answer: FakeResponse) {
        // A gateway that was killed meanwhile does not hear it.
        let _heard = self.answer.send(answer);
    }
}

// === impl Seen ===

impl RecordedRequest {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().expect(name).to_str().expect("text");
        assert!(values.next().is_none(), "{name} is there once");
        value
    }
}
