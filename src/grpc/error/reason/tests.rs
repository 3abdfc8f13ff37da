use crate::{domain::violation::FieldReason, grpc::error::tests::reasons, proto};

#[test]
fn the_proto_lists_exactly_the_values_that_errors_carry() {
    assert_eq!(reasons().count(), 24);
    for reason in reasons() {
        assert_eq!(format!("REASON_{}", reason.name()), reason.as_str_name());
        let name = format!("RETRY_{}", reason.code_and_advice().1.as_str());
        assert!(proto::Retry::from_str_name(&name).is_some(), "{name}");
    }
    for reason in [
        FieldReason::Required,
        FieldReason::TooLong,
        FieldReason::Format,
        FieldReason::Character,
        FieldReason::Value,
        FieldReason::Duplicate,
        FieldReason::Combination,
    ] {
        let name = format!("FIELD_REASON_{}", reason.as_str());
        assert!(proto::FieldReason::from_str_name(&name).is_some(), "{name}");
    }
}
