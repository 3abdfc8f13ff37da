//! Identifiers and addresses of devices.

use thingspace_gateway::proto::{Address, CustomerName, DeviceId, PrimaryPlaceOfUse};

/// Names and addresses that occur in no other text of a test.
pub const PERSONAL: [&str; 5] =
    ["14 Wexcombe Crossing", "Quagga Annex", "Ogdenquist", "Zebedee", "Quillfeather"];

pub fn iccid(number: usize) -> String {
    format!("8914800000{number:010}")
}

pub fn eid(number: usize) -> String {
    format!("8904903200000100000000{number:010}")
}

pub fn meid(number: usize) -> String {
    format!("A10000{number:08X}")
}

pub fn id(kind: &str, id: impl Into<String>) -> DeviceId {
    DeviceId { kind: kind.into(), id: id.into() }
}

/// An address and a name that consist of [`PERSONAL`].
pub fn place() -> PrimaryPlaceOfUse {
    let [line1, line2, city, first, last] = PERSONAL.map(String::from);
    PrimaryPlaceOfUse {
        address: Some(Address {
            address_line1: line1,
            address_line2: line2,
            city,
            state: "TX".into(),
            zip: "78660".into(),
            zip4: String::new(),
            country: "US".into(),
        }),
        customer_name: Some(CustomerName {
            first_name: first,
            last_name: last,
            ..CustomerName::default()
        }),
    }
}
