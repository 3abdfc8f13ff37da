use super::*;

#[test]
fn a_timeout_of_connect_is_one_of_grpc() {
    let timeout = |text: &'static str| {
        let timeout = grpc_timeout(&HeaderValue::from_static(text));
        timeout.map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(timeout("0").as_deref(), Some("0m"));
    assert_eq!(timeout("1500").as_deref(), Some("1500m"));
    assert_eq!(timeout("99999999").as_deref(), Some("99999999m"));
    assert_eq!(timeout("100000000").as_deref(), Some("100000S"));
    assert_eq!(timeout("9999999999").as_deref(), Some("9999999S"));
    for malformed in ["", "10000000000", "-1", "+1", "1.5", "1s", " 1"] {
        assert_eq!(timeout(malformed), None, "{malformed}");
    }
}
