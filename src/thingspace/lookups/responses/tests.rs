use super::*;

#[test]
fn a_plan_is_parsed_with_members_of_any_type() {
    let plan = serde_json::json!({
        "name": "2MSHR5GB", "CODE": "M2MSHR5GB", "sizeKb": "5120", "carrierServicePlanCode": 84638,
        "extendedAttributes": [{"key": "carrier", "value": "Verizon"}, {"value": "x"}, 7],
    });
    let expected = ServicePlanInfo {
        name: "2MSHR5GB".into(),
        code: "M2MSHR5GB".into(),
        carrier_service_plan_code: "84638".into(),
        size_kb: Some(5_120),
        extended_attributes: vec![("carrier".into(), "Verizon".into())],
    };
    assert_eq!(ServicePlanInfo::parse(&plan), expected);
    assert_eq!(ServicePlanInfo::parse(&serde_json::json!({})), ServicePlanInfo::default());
}
