use thingspace_settings::ListItem as _;

use super::*;

fn rules(has_identities: bool) -> SiteRules {
    let allowed = Origin::parse("https://console.example.com").unwrap();
    SiteRules { allowed: vec![allowed], has_identities }
}

fn request(host: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/thingspace.gateway.v1.OperatorService/GetStatus");
    request = request.header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn status(rules: &SiteRules, request: &Request<Body>, is_tls: bool) -> u16 {
    rules.check(request, is_tls).map_or_else(|(status, _)| status.as_u16(), |()| 200)
}

#[test]
fn only_the_own_origin_is_accepted() {
    for has_identities in [false, true] {
        let rules = rules(has_identities);
        for (host, origin, is_tls, expected) in [
            ("localhost:9091", "http://localhost:9091", false, 200),
            ("LOCALHOST:9091", "http://localhost:9091", false, 200),
            ("[::1]:9091", "http://[::1]:9091", false, 200),
            ("localhost:9091", "https://localhost:9091", true, 200),
            ("localhost:9091", "http://localhost:9091", true, 403),
            ("localhost:9091", "https://localhost:9091", false, 403),
            ("localhost:9091", "http://localhost:9092", false, 403),
            ("localhost:9091", "http://localhost", false, 403),
            ("localhost:9091", "http://evil.example", false, 403),
            ("localhost:9091", "null", false, 403),
            ("localhost:9091", "", false, 403),
            // A proxy ends TLS.
            ("console.example.com", "https://console.example.com", false, 200),
            ("console.example.com", "https://console.example.com:444", false, 403),
            ("127.0.0.1:9091", "https://console.example.com", false, 403),
        ] {
            let request = request(host, &[("origin", origin)]);
            assert_eq!(status(&rules, &request, is_tls), expected, "{host} {origin} {is_tls}");
        }
        let twice = request(
            "localhost",
            &[("origin", "http://localhost"), ("origin", "http://evil.example")],
        );
        assert_eq!(status(&rules, &twice, false), 403);
        for (site, expected) in [
            ("same-origin", 200),
            ("none", 200),
            ("same-site", 403),
            ("cross-site", 403),
            ("", 403),
        ] {
            let request = request("localhost", &[("sec-fetch-site", site)]);
            assert_eq!(status(&rules, &request, false), expected, "{site}");
        }
    }
}

#[test]
fn a_link_of_another_page_opens_the_page_but_makes_no_call() {
    let rules = rules(true);
    let headers = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let mut link = request("localhost", &headers);
    assert_eq!(status(&rules, &link, false), 403);
    *link.method_mut() = Method::GET;
    assert_eq!(status(&rules, &link, false), 200);
    let mut frame = request("localhost", &headers[..2]);
    *frame.method_mut() = Method::GET;
    assert_eq!(status(&rules, &frame, false), 403);
}

#[test]
fn without_identities_a_host_name_that_an_attacker_can_own_is_refused() {
    for (host, expected) in [
        ("localhost", 200),
        ("localhost:9091", 200),
        ("localhost.:9091", 200),
        ("gateway.localhost:9091", 200),
        ("127.0.0.1:9091", 200),
        ("10.1.2.3", 200),
        ("[::1]:9091", 200),
        ("[fd00::1]", 200),
        ("console.example.com", 200),
        ("console.example.com:9091", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:9091", 421),
        ("xlocalhost", 421),
        ("console.example.com.evil.example", 421),
        ("user@localhost", 400),
        ("", 400),
    ] {
        let request = request(host, &[]);
        assert_eq!(status(&rules(false), &request, false), expected, "{host}");
        let with_identities = if expected == 421 { 200 } else { expected };
        assert_eq!(status(&rules(true), &request, false), with_identities, "{host}");
    }
    let two = request("localhost", &[("host", "evil.example")]);
    assert_eq!(status(&rules(false), &two, false), 400);
    let mut differs = request("localhost", &[]);
    *differs.uri_mut() = "http://evil.example/console/".parse().unwrap();
    assert_eq!(status(&rules(false), &differs, false), 400);
}
