use super::*;

#[test]
fn loopback_is_127_8_and_1_also_mapped_and_localhost_with_all_below_it() {
    for (host, expected) in [
        ("127.0.0.1", true),
        ("127.255.255.254", true),
        ("127.1", true),
        ("[::1]", true),
        ("[::ffff:127.0.0.1]", true),
        ("[::ffff:7f00:2]", true),
        ("localhost", true),
        ("LocalHost", true),
        ("localhost.", true),
        ("gateway.localhost", true),
        ("a.b.localhost.", true),
        ("0.0.0.0", false),
        ("[::]", false),
        ("128.0.0.1", false),
        ("[::ffff:10.0.0.1]", false),
        ("[::2]", false),
        ("localhost.example.com", false),
        ("notlocalhost", false),
        ("example.com", false),
    ] {
        let url = Url::parse(&format!("http://{host}:9001/path")).unwrap();
        assert_eq!(is_loopback_url(&url), expected, "{host}");
    }
    assert!(!is_loopback_name(""));
    assert!(!is_loopback_name("."));
    assert!(!is_loopback_name(".localhost"));
}
