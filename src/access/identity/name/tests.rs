use proptest::prelude::*;

use super::*;

#[test]
fn spiffe_ids_follow_their_specification() {
    for valid in [
        "spiffe://corp.example/ns/fleet/sa/gateway",
        "spiffe://a/b",
        "spiffe://10.2.3.4/Payments_2/x.y-z",
        "spiffe://under_score.example/...",
    ] {
        assert_eq!(IdentityName::parse(valid).unwrap().as_str(), valid);
    }
    for invalid in [
        "spiffe://corp.example",
        "spiffe://corp.example/",
        "spiffe:///path",
        "spiffe://Corp.example/a",
        "SPIFFE://corp.example/a",
        "spiffe://corp.example/a/",
        "spiffe://corp.example//a",
        "spiffe://corp.example/a/../b",
        "spiffe://corp.example/./b",
        "spiffe://corp.example:8443/a",
        "spiffe://user@corp.example/a",
        "spiffe://corp.example/a?q=1",
        "spiffe://corp.example/a#f",
        "spiffe://corp.example/%61",
        "spiffe://corp.example/a*",
        "spiffe://corp.example/ä",
    ] {
        assert_eq!(IdentityName::parse(invalid), Err(InvalidName), "{invalid}");
    }
    let long = |length: usize| format!("spiffe://a/{}", "x".repeat(length - 11));
    assert!(IdentityName::parse(&long(512)).is_ok());
    assert_eq!(IdentityName::parse(&long(513)), Err(InvalidName));
    let domain = format!("spiffe://{}/a", "d".repeat(256));
    assert_eq!(IdentityName::parse(&domain), Err(InvalidName));
}

#[test]
fn dns_names_are_lower_case_and_have_no_wildcards() {
    let name = IdentityName::dns("Client-1.EXAMPLE.com").unwrap();
    assert_eq!(name.as_str(), "dns:client-1.example.com");
    for invalid in
        ["", "*.example.com", "a..b", "a.", ".a", "a b", "a\0b", "münchen.example", "a/b"]
    {
        assert_eq!(IdentityName::dns(invalid), Err(InvalidName), "{invalid}");
    }
    assert_eq!(IdentityName::dns(&"a".repeat(64)), Err(InvalidName));
    assert_eq!(IdentityName::dns(&"a.".repeat(127)), Err(InvalidName));
}

#[test]
fn other_names_are_bounded_and_have_no_control_characters() {
    for valid in
        ["jwt:fleet service|42", "jwt:Zoë", "subject:CN=client,O=Example", "mesh:a.b.svc:1/x"]
    {
        assert_eq!(IdentityName::parse(valid).unwrap().as_str(), valid);
    }
    for invalid in [
        "",
        "jwt:",
        "jwt:a\nb",
        "jwt:a\u{85}b",
        "subject:",
        "subject:client",
        "mesh:",
        "mesh:a b",
        "mesh:a,b",
        "oidc:a",
        "JWT:a",
        "client",
    ] {
        assert_eq!(IdentityName::parse(invalid), Err(InvalidName), "{invalid:?}");
    }
    assert!(IdentityName::jwt(&"x".repeat(508)).is_ok());
    assert_eq!(IdentityName::jwt(&"x".repeat(509)), Err(InvalidName));
}

#[test]
fn a_caller_has_1_to_64_different_names() {
    let name = |number: usize| IdentityName::jwt(&number.to_string()).unwrap();
    assert_eq!(IdentityNames::new([]), None);
    assert_eq!(IdentityNames::new((0..65).map(name)), None);
    let names = IdentityNames::new((0..200).map(|number| name(number % 64))).unwrap();
    assert_eq!(names.iter().count(), 64);
    assert_eq!(names.primary(), "jwt:0");
}

proptest! {
    #[test]
    fn a_parsed_name_is_bounded_and_parses_to_itself(
        scheme in prop::sample::select(vec!["spiffe://", "dns:", "subject:", "jwt:", "mesh:", ""]),
        rest in "\\PC{0,600}|[a-z0-9./=-]{0,40}",
    ) {
        if let Ok(name) = IdentityName::parse(&format!("{scheme}{rest}")) {
            prop_assert!(name.as_str().len() <= MAX_LENGTH);
            prop_assert_eq!(IdentityName::parse(name.as_str()), Ok(name.clone()));
        }
    }
}
