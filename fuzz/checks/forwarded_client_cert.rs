//! The header `x-forwarded-client-cert` of a trusted proxy, of which a client may have chosen parts.

use thingspace_gateway::access::identity::{AuthFailureReason, parse_forwarded_client_cert};

pub fn check(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    let parsed = parse_forwarded_client_cert(header);
    match &parsed {
        Ok(names) => {
            assert!((1..=64).contains(&names.iter().count()));
            for name in names.iter() {
                check_name(header, name.as_str());
            }
        }
        Err(reason) => {
            let reasons = [AuthFailureReason::MalformedHeader, AuthFailureReason::NoName];
            assert!(reasons.contains(reason));
        }
    }
    check_appended_element(header, parsed.is_ok());
}

/// A name is bounded, and its value occurs in the header.
fn check_name(header: &str, name: &str) {
    assert!(name.len() <= 512 && !name.chars().any(char::is_control), "{name}");
    let value = match name.split_once(':') {
        Some(("spiffe", _)) => name,
        Some(("dns" | "subject", value)) => value,
        _ => panic!("{name}"),
    };
    assert!(header.to_lowercase().contains(&value.to_lowercase()), "{name}");
}

/// Only the last element counts, which the nearest proxy appends.
fn check_appended_element(header: &str, is_valid: bool) {
    let appended = format!("{header},URI=spiffe://corp.example/caller");
    match parse_forwarded_client_cert(&appended) {
        Ok(names) => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            assert_eq!(names, ["spiffe://corp.example/caller"], "{header}");
        }
        Err(_) => assert!(!is_valid || appended.len() > 16 * 1024, "{header}"),
    }
}
