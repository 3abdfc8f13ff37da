use super::*;

#[test]
fn an_identifier_is_valid_only_in_the_format_of_its_kind() {
    for (kind, good, bad) in [
        ("EID", "89049032000001000000000000000001", "8904903200000100000000000000000"),
        ("iccid", "89148000000800139708", "8914800000080013970X"),
        ("Iccid", "8914800000080013970", "891480000008001397"),
        ("imei", "990013907835573", "99001390783557"),
        ("MEID", "A100003685e561", "A100003685E56G"),
        ("esn", "12345678901", "1234567890"),
        ("mdn", "5555551234", "15555551234"),
        ("msisdn", "15555551234", "25555551234"),
        ("min", "5555551234", ""),
        ("imsi", "311480000000000", "31148000000000"),
    ] {
        let kind: IdentifierKind = kind.parse().unwrap();
        assert_eq!(DeviceId::new(kind, good).unwrap().id(), good);
        assert!(DeviceId::new(kind, bad).is_err(), "{kind:?} {bad}");
    }
    let unknown = "otaid".parse::<IdentifierKind>().unwrap_err();
    assert_eq!(unknown.reason, FieldReason::Value);
    // Unicode digits of other scripts are not accepted.
    assert!(DeviceId::new(IdentifierKind::Mdn, "٥٥٥٥٥").is_err());
}

#[test]
fn an_invalid_check_digit_is_detected_and_does_not_reject_an_imei() {
    let documented = DeviceId::new(IdentifierKind::Imei, "990013907835573").unwrap();
    assert!(documented.has_invalid_check_digit());
    let correct = DeviceId::new(IdentifierKind::Imei, "490154203237518").unwrap();
    assert!(!correct.has_invalid_check_digit());
}
