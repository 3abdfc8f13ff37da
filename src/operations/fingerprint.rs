//! The input of the fingerprint that tells if a key is used again for the same request.

use crate::domain::{
    change::SentDevice,
    newtypes::{AccountName, ServicePlan},
};

/// The version of the format. A stored fingerprint is only equal to one of the same version.
const VERSION: &[u8] = b"thingspace.gateway/content/1";

/// Collects the input of a request's fingerprint.
///
/// Every text is preceded by its length, so that different requests never have the same bytes. The
/// devices are sorted, so that their order does not matter.
#[derive(Debug)]
pub struct FingerprintInput {
    head: Vec<u8>,
    devices: Vec<Vec<u8>>,
}

impl FingerprintInput {
    pub(crate) fn new(
        account: &AccountName,
        service_plan: &ServicePlan,
        devices: &[SentDevice],
    ) -> Self {
        let mut head = VERSION.to_vec();
        put(&mut head, account.as_str().as_bytes());
        put(&mut head, service_plan.as_str().as_bytes());
        let devices = devices.iter().map(|device| {
            let mut out = Vec::new();
            for id in device.sorted_ids() {
                put(&mut out, id.kind().as_str().as_bytes());
                put(&mut out, id.id().as_bytes());
            }
            out
        });
        Self { head, devices: devices.collect() }
    }

    /// Adds a text of the request as a whole.
    pub fn add(&mut self, text: &str) {
        put(&mut self.head, text.as_bytes());
    }

    /// Adds the texts of each device, in the order of the devices.
    pub fn add_per_device<'a, T>(&mut self, texts: impl IntoIterator<Item = T>)
    where
        T: IntoIterator<Item = &'a str>,
    {
        for (device, texts) in self.devices.iter_mut().zip(texts) {
            for text in texts {
                put(device, text.as_bytes());
            }
        }
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.devices.sort_unstable();
        for device in &self.devices {
            put(&mut self.head, device);
        }
        self.head
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}
