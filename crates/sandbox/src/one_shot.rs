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
        self.rejected
            .insert(serial, credential.unwrap_or_default().into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_rejected_until_it_has_another_credential() {
        let mut one_shot = OneShot::default();
        assert!(one_shot.should_reject(81, "ff1", Some("old")));
        assert!(one_shot.should_reject(81, "FF1", Some("old")));
        assert!(!one_shot.should_reject(81, "ff1", Some("new")));
        assert!(one_shot.should_reject(81, "ff2", Some("new")));
        assert!(one_shot.should_reject(82, "ff1", Some("new")));
    }

    #[test]
    fn without_a_credential_a_serial_is_rejected_the_first_time_only() {
        let mut one_shot = OneShot::default();
        assert!(one_shot.should_reject(87, "1", None));
        assert!(!one_shot.should_reject(87, "1", None));
    }

    #[test]
    fn the_number_of_stored_serials_is_bounded() {
        let mut one_shot = OneShot::default();
        for serial in 0..=MAX_SERIALS {
            assert!(one_shot.should_reject(87, &serial.to_string(), None));
        }
        assert_eq!(
            (one_shot.rejected.len(), one_shot.order.len()),
            (MAX_SERIALS, MAX_SERIALS)
        );
        assert!(one_shot.should_reject(87, "0", None));
    }
}
