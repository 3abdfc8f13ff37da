use super::*;

fn behind(hops: u8, values: &[&str]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(FORWARDED_FOR, value.parse().unwrap());
    }
    let peer = "::ffff:10.0.0.9".parse().unwrap();
    resolve(peer, &headers, hops).map(|address| address.to_string())
}

#[test]
fn the_client_ip_is_the_entry_of_the_outermost_trusted_proxy() {
    assert_eq!(behind(0, &["1.1.1.1"]).unwrap(), "10.0.0.9");
    assert_eq!(behind(1, &["1.1.1.1, 2.2.2.2"]).unwrap(), "2.2.2.2");
    assert_eq!(behind(2, &["9.9.9.9,1.1.1.1", "2.2.2.2"]).unwrap(), "1.1.1.1");
    assert_eq!(behind(1, &["[2001:db8::1]:443"]).unwrap(), "2001:db8::1");
    assert_eq!(behind(1, &["2001:db8::1"]).unwrap(), "2001:db8::1");
    assert_eq!(behind(1, &["3.3.3.3:8080"]).unwrap(), "3.3.3.3");
    assert_eq!(behind(1, &[]), None);
    assert_eq!(behind(1, &["1.1.1.1, unknown"]), None);
    assert_eq!(behind(3, &["1.1.1.1, 2.2.2.2"]), None);
}
