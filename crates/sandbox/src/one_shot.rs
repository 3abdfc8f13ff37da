//! Which serials of the scenarios that refuse once have been used up.

use std::collections::{HashMap, VecDeque};

/// Serials that are remembered: the oldest gives way, and would refuse again.
const MAX_SPENT: usize = 100_000;

/// A scenario's number and the identifier that asked for it.
type Serial = (u8, Box<str>);

#[derive(Default)]
pub(crate) struct OneShot {
    /// With the credential that was refused.
    rejected: HashMap<Serial, Box<str>>,
    order: VecDeque<Serial>,
}

impl OneShot {
    /// Whether a request is refused: the first with this serial is, and with it
    /// every later one that comes with the same credential. Without a
    /// credential only the first is.
    pub(crate) fn should_reject(
        &mut self,
        scenario: u8,
        identifier: &str,
        credential: Option<&str>,
    ) -> bool {
        let serial: Serial = (scenario, identifier.to_ascii_uppercase().into());
        if let Some(refused) = self.rejected.get(&serial) {
            return credential == Some(&**refused);
        }
        if self.order.len() >= MAX_SPENT
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
    fn a_serial_is_refused_until_it_comes_with_another_credential() {
        let mut once = OneShot::default();
        assert!(once.should_reject(81, "ff1", Some("old")));
        assert!(once.should_reject(81, "FF1", Some("old")));
        assert!(!once.should_reject(81, "ff1", Some("new")));
        assert!(once.should_reject(81, "ff2", Some("new")));
        assert!(once.should_reject(82, "ff1", Some("new")));
    }

    #[test]
    fn without_a_credential_a_serial_is_refused_the_first_time_only() {
        let mut once = OneShot::default();
        assert!(once.should_reject(87, "1", None));
        assert!(!once.should_reject(87, "1", None));
    }

    #[test]
    fn the_memory_of_serials_is_bounded() {
        let mut once = OneShot::default();
        for serial in 0..=MAX_SPENT {
            assert!(once.should_reject(87, &serial.to_string(), None));
        }
        assert_eq!(
            (once.rejected.len(), once.order.len()),
            (MAX_SPENT, MAX_SPENT)
        );
        assert!(once.should_reject(87, "0", None));
    }
}
