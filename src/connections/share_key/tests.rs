use super::*;

fn share(address: &str) -> ShareKey {
    ShareKey::of_address(address.parse().unwrap())
}

#[test]
fn addresses_of_one_ipv6_network_have_one_share() {
    assert_eq!(share("2001:db8:0:1::1"), share("2001:db8:0:1:ffff::2"));
    assert_ne!(share("2001:db8:0:1::1"), share("2001:db8:0:2::1"));
    assert_ne!(share("192.0.2.1"), share("192.0.2.2"));
    assert_eq!(share("192.0.2.1"), share("::ffff:192.0.2.1"));
}
