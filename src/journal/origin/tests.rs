use super::*;

#[test]
fn the_origin_is_scheme_host_and_port_in_any_spelling() {
    for (url, origin) in [
        ("https://thingspace.verizon.com/api", "https://thingspace.verizon.com"),
        ("https://ThingSpace.Verizon.com.:443/api/", "https://thingspace.verizon.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:9999/a/b", "http://[::1]:9999"),
        ("https://thingspace.verizon.com:8443/api", "https://thingspace.verizon.com:8443"),
    ] {
        let url: Url = url.parse().unwrap();
        assert_eq!(Origin::from_url(&url).as_str(), origin);
    }
}
