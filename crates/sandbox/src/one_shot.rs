//! Remembers which serial numbers the one-shot scenarios have rejected.

use std::collections::{HashMap, VecDeque};

/// Maximum number of stored serials. An evicted one is rejected again.
const MAX_SERIALS: usize = 100_000;

/// The number of a scenario and the identifier that selects it.
type Serial = (u8, Box<str>);

#[derive(Default)]
pub(crate) struct OneShot {
    /// The rejected credential of each serial.
    rejected: HashMap<Serial, Box<str>>,
    order: VecDeque<Serial>,
}

impl OneShot {
    /// True for the first request with a serial, and for later ones with the same credential.
    /// Without a credential, only for the first.
    pub(crate) fn should_reject(
        &mut self,
        scenario: u8,
        identifier: &str,
        credential: Option<&str>,
    ) -> bool {
        let serial: Serial = (scenario, identifier.to_ascii_uppercase().into());
        if let Some(rejected) = self.rejected.get(&serial) {
            return credential == Some(&**rejected);
        }
        if self.order.len() >= MAX_SERIALS
            && let Some(oldest) = self.order.pop_front()
        {
            self.rejected.remove(&oldest);
        }
        self.order.push_back(serial.clone());
        self.rejected.insert(serial, credential.unwrap_or_default().into());
        true
    }
}

#[cfg(test)]
mod tests;
