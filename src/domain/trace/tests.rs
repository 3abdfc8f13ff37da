use super::*;

#[test]
fn only_a_valid_traceparent_is_parsed() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(TraceParent::parse(good).unwrap().as_str(), good);
    for bad in [
        "",
        "00",
        good.trim_end_matches("1"),
        &good.to_uppercase(),
        &format!("{good}-00"),
        &good.replace("00-0a", "01-0a"),
        &good.replace("b7ad6b7169203331", "0000000000000000"),
        &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
    ] {
        assert_eq!(TraceParent::parse(bad), None, "{bad}");
    }
}
