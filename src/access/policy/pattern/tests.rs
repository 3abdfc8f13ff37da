use proptest::prelude::*;

use super::*;

fn identity(text: &str) -> IdentityPattern {
    IdentityPattern::parse(text).unwrap()
}

#[test]
fn a_star_in_an_identity_matches_characters_of_one_segment() {
    for (pattern, name, expected) in [
        ("spiffe://corp.example/ns/fleet/sa/*", "spiffe://corp.example/ns/fleet/sa/web", true),
        ("spiffe://corp.example/ns/fleet/sa/*", "spiffe://corp.example/ns/fleet/sa/web/x", false),
        ("spiffe://corp.example/ns/fleet/sa/*", "spiffe://corp.example/ns/fleet/sa/", false),
        ("spiffe://corp.example/ns/fleet/sa/*", "spiffe://corp.example/ns/fleet/sa", false),
        ("spiffe://corp.example/ns/*/sa/web-*", "spiffe://corp.example/ns/a/sa/web-1", true),
        ("spiffe://corp.example/ns/*/sa/web-*", "spiffe://corp.example/ns/a/b/sa/web-1", false),
        ("spiffe://corp.example/ns/*/sa/web-*", "spiffe://corp.example/ns/a/sa/web-", false),
        ("spiffe://corp.example/**", "spiffe://corp.example/a", true),
        ("spiffe://corp.example/**", "spiffe://corp.example/a/b/c", true),
        ("spiffe://corp.example/**", "spiffe://corp.example", false),
        ("spiffe://corp.example/**", "spiffe://corp.example/", false),
        ("spiffe://corp.example/**", "spiffe://corp.example/a//b", false),
        ("spiffe://corp.example/**", "spiffe://corp.example.evil/a", false),
        ("spiffe://corp.example/a/**", "spiffe://corp.example/ab/c", false),
        ("dns:*.example.com", "dns:client.example.com", true),
        ("dns:*.example.com", "dns:a.client.example.com", false),
        ("dns:*.example.com", "dns:example.com", false),
        ("dns:Client.Example.COM", "dns:client.example.com", true),
        ("dns:Web-*.Example.COM", "dns:web-1.example.com", true),
        ("subject:CN=*,O=Example", "subject:CN=client,O=Example", true),
        ("subject:CN=*,O=Example", "subject:CN=a,O=Evil,O=Example", true),
        ("jwt:fleet-*", "jwt:fleet-1", true),
        ("jwt:fleet-*", "mesh:fleet-1", false),
        ("jwt:fleet-*", "fleet-1", false),
        ("jwt:*", "jwt:", false),
        ("jwt:ä*ö", "jwt:äüö", true),
        ("jwt:ä*ö", "jwt:äö", false),
        ("jwt:*a*a*", "jwt:xaxax", true),
        ("jwt:*a*a*", "jwt:xaax", false),
        ("mesh:web.*.serviceaccount.identity", "mesh:web.ns.serviceaccount.identity", true),
    ] {
        assert_eq!(identity(pattern).matches(name), expected, "{pattern} {name}");
    }
}

#[test]
fn an_identity_pattern_without_a_scheme_or_with_impossible_text_is_refused() {
    for pattern in [
        "",
        "*",
        "**",
        "fleet",
        "http://corp.example/a",
        "spiffe://",
        "spiffe:///a",
        "spiffe:///**",
        "spiffe://Corp.example/a",
        "spiffe://corp.example/",
        "spiffe://corp.example/a//b",
        "spiffe://corp.example/../a",
        "spiffe://corp.example/**/a",
        "spiffe://corp.example/a**",
        "spiffe://corp.example/a%20",
        "dns:",
        "dns:a..b",
        "dns:a/**",
        "dns:a b",
        "jwt:",
        "jwt:a**",
        "jwt:a/**",
        "jwt:a\nb",
        "mesh:",
    ] {
        assert!(IdentityPattern::parse(pattern).is_err(), "{pattern}");
    }
    let longest = format!("jwt:{}", "a".repeat(MAX_IDENTITY_BYTES - 4));
    assert!(IdentityPattern::parse(&longest).is_ok());
    assert!(IdentityPattern::parse(&format!("{longest}a")).is_err());
}

#[test]
fn a_pattern_covers_another_only_if_it_matches_all_of_its_names() {
    for (pattern, other, expected) in [
        ("jwt:*", "jwt:a", true),
        ("jwt:*", "jwt:a*", true),
        ("jwt:a*", "jwt:*", false),
        ("jwt:*a", "jwt:*", false),
        ("spiffe://td/**", "spiffe://td/a/*", true),
        ("spiffe://td/**", "spiffe://td/a/**", true),
        ("spiffe://td/*", "spiffe://td/**", false),
        ("spiffe://td/a/*", "spiffe://td/a/**", false),
        ("spiffe://*/**", "spiffe://td/**", true),
        ("spiffe://td/**", "spiffe://*/**", false),
        ("dns:*.example.com", "dns:a-*.example.com", true),
        ("dns:*.example.com", "dns:*.*.example.com", false),
    ] {
        assert_eq!(identity(pattern).covers(&identity(other)), expected, "{pattern} {other}");
    }
}

#[test]
fn a_star_in_an_account_matches_any_characters() {
    for (pattern, account, expected) in [
        ("0000123456-00001", "0000123456-00001", true),
        ("0000123456-00001", "0000123456-000011", false),
        ("0000777*", "0000777", true),
        ("0000777*", "0000777123-00001", true),
        ("0000777*", "1000077", false),
        ("*-00001", "0000123456-00001", true),
        ("*1*1*", "101", true),
        ("*1*1*", "10", false),
        ("*", "abc", true),
        ("**", "abc", true),
    ] {
        let pattern = AccountPattern::parse(pattern).unwrap();
        assert_eq!(pattern.matches(account), expected, "{pattern} {account}");
    }
    for pattern in ["", "a b", "a/b", "ä", &"1".repeat(MAX_ACCOUNT_BYTES + 1)] {
        assert!(AccountPattern::parse(pattern).is_none(), "{pattern}");
    }
    let matches_all = |pattern| AccountPattern::parse(pattern).unwrap().matches_all();
    assert!(matches_all("*") && matches_all("**") && !matches_all("0*"));
}

/// Matches by trying every length of each `*`.
fn matches_slowly(pattern: &[char], text: &[char], min_gap: usize, separators: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (min_gap..=text.len())
            .take_while(|length| !text[..*length].iter().any(|c| separators.contains(c)))
            .any(|length| matches_slowly(rest, &text[length..], min_gap, separators)),
        Some((literal, rest)) => {
            text.first() == Some(literal) && matches_slowly(rest, &text[1..], min_gap, separators)
        }
    }
}

proptest! {
    #[test]
    fn the_matcher_agrees_with_one_that_tries_everything(
        pattern in "[ab/*]{1,8}",
        text in "[ab/]{0,10}",
    ) {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        if let Ok(identity) = IdentityPattern::parse(&format!("jwt:{pattern}")) {
            let expected = matches_slowly(&chars(&pattern), &chars(&text), 1, &['/']);
            prop_assert_eq!(identity.matches(&format!("jwt:{text}")), expected);
        }
    }

    #[test]
    fn the_account_matcher_agrees_with_one_that_tries_everything(
        pattern in "[ab*]{1,8}",
        text in "[ab]{0,10}",
    ) {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = matches_slowly(&chars(&pattern), &chars(&text), 0, &[]);
        prop_assert_eq!(AccountPattern::parse(&pattern).unwrap().matches(&text), expected);
    }

    #[test]
    fn a_pattern_that_covers_another_matches_its_names(
        first in "[ab/*]{1,6}",
        second in "[ab/*]{1,6}",
        name in "[ab/]{1,8}",
    ) {
        let parse = |text: &str| IdentityPattern::parse(&format!("jwt:{text}"));
        if let (Ok(first), Ok(second)) = (parse(&first), parse(&second))
            && first.covers(&second)
        {
            let name = format!("jwt:{name}");
            prop_assert!(first.matches(&name) || !second.matches(&name));
        }
    }
}
