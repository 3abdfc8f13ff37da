use proptest::prelude::*;

use super::*;
use crate::access::identity::Checked;
use crate::telemetry::AuthFailureReason::{MalformedHeader, NoName};

fn names(header: &str) -> Checked<Vec<String>> {
    let names = parse_forwarded_client_cert(header)?;
    Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
}

#[test]
fn the_headers_of_envoys_documentation_are_parsed() {
    let hash = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
    for (pairs, expected) in [
        (
            "Subject=\"CN=Test Client,OU=Lyft,L=San Francisco,ST=CA,C=US\";URI=spiffe://lyft.com/ns/a/sa/b",
            vec![
                "spiffe://lyft.com/ns/a/sa/b",
                "subject:CN=Test Client,OU=Lyft,L=San Francisco,ST=CA,C=US",
            ],
        ),
        (
            "URI=http://testclient.lyft.com;DNS=lyft.com;DNS=www.Lyft.com",
            vec!["dns:lyft.com", "dns:www.lyft.com"],
        ),
        (
            "Cert=\"-----BEGIN%20CERTIFICATE-----%0A+/==%0A\";Chain=\"x,y;z\";Subject=\"\";URI=spiffe://a/b",
            vec!["spiffe://a/b"],
        ),
        ("Subject=\"/C=US/ST=CA/CN=Test Client\"", vec!["subject:/C=US/ST=CA/CN=Test Client"]),
    ] {
        let header = format!("By=http://frontend.lyft.com;Hash={hash};{pairs}");
        assert_eq!(names(&header).unwrap(), expected);
    }
}

#[test]
fn only_the_element_of_the_nearest_proxy_counts() {
    let outer = "By=spiffe://a/outer;Subject=\"CN=x,y;z\";URI=spiffe://a/victim;DNS=victim.example";
    assert_eq!(
        names(&format!("{outer},By=spiffe://a/me;URI=spiffe://a/caller")).unwrap(),
        ["spiffe://a/caller"]
    );
    assert_eq!(names(&format!("{outer}, Hash=abc;Subject=\"\"")), Err(NoName));
    // A quoted comma separates nothing.
    let subject = "Subject=\"CN=a,URI=spiffe://a/victim\"";
    assert_eq!(names(subject).unwrap(), ["subject:CN=a,URI=spiffe://a/victim"]);
}

#[test]
fn keys_have_any_case_and_escapes_stay_as_in_the_subject() {
    assert_eq!(
        names("uri=spiffe://a/b;dNs=C;SUBJECT=\"CN=d\"").unwrap(),
        ["spiffe://a/b", "dns:c", "subject:CN=d"]
    );
    let subject = r#"Subject="CN=say \"hi\"\;URI=spiffe://a/victim\\,O=Example\, Inc." ; DNS=a"#;
    assert_eq!(
        names(subject).unwrap(),
        ["dns:a", r#"subject:CN=say \"hi\"\;URI=spiffe://a/victim\\,O=Example\, Inc."#,]
    );
}

#[test]
fn a_header_outside_the_grammar_is_refused() {
    for header in [
        "URI",
        "URI=spiffe://a/b;",
        "URI=spiffe://a/b,",
        ",URI=spiffe://a/b",
        ";URI=spiffe://a/b",
        "=x",
        "URI=\"spiffe://a/b",
        "URI=\"spiffe://a/b\\",
        "URI=\"spiffe://a/b\"x",
        "URI=spiffe://a\"/b",
        "U RI=spiffe://a/b",
        "URI=spiffe://a/b;Subject=\"a\"b\"",
        // An earlier element is malformed: no one knows where it ends.
        "Subject=\"CN=a\"b\",URI=spiffe://a/b",
        "URI=spiffe://a/b;URI=spiffe://a/c",
        "URI=spiffe://a/b;URI=https://a",
        "URI=spiffe://a",
        "DNS=a;URI=spiffe://a/b/../c",
        "Subject=\"CN=a\";Subject=\"CN=b\"",
    ] {
        assert_eq!(names(header), Err(MalformedHeader), "{header}");
    }
    for header in
        ["", "  ", "By=spiffe://a/b;Hash=1", "DNS=*.example", "Subject=\"\"", "URI=https://a"]
    {
        assert_eq!(names(header), Err(NoName), "{header}");
    }
}

#[test]
fn the_size_of_a_header_is_bounded() {
    let padded = |length: usize| format!("DNS=a;Hash={}", "x".repeat(length - 11));
    assert!(names(&padded(MAX_LENGTH)).is_ok());
    assert_eq!(names(&padded(MAX_LENGTH + 1)), Err(MalformedHeader));
    let pairs = |count: usize| format!("DNS=a{}", ";DNS=a".repeat(count - 1));
    assert_eq!(names(&pairs(MAX_PAIRS)).unwrap(), ["dns:a"]);
    assert_eq!(names(&pairs(MAX_PAIRS + 1)), Err(MalformedHeader));
    let different: Vec<_> = (0..65).map(|number| format!("DNS=n{number}")).collect();
    assert_eq!(names(&different.join(";")), Err(MalformedHeader));
}

/// A value that needs quotes or not.
fn value() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ,;=.:/-]{0,20}|CN=[a-z,;= ]{1,10}"
}

fn write(pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| {
        let needs_quotes = value.contains([',', ';', '=', ' ']);
        if needs_quotes { format!("{key}=\"{value}\"") } else { format!("{key}={value}") }
    });
    pairs.collect::<Vec<_>>().join(";")
}

fn element() -> impl Strategy<Value = Vec<(String, String)>> {
    let key = prop::sample::select(vec!["By", "Hash", "Subject", "URI", "DNS", "Cert"]);
    prop::collection::vec((key.prop_map(str::to_owned), value()), 1..5)
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(header in "\\PC{0,200}|[a-zA-Z=;,\"\\\\ ]{0,60}") {
        if let Ok(names) = parse_forwarded_client_cert(&header) {
            prop_assert!(names.iter().count() >= 1);
        }
    }

    #[test]
    fn written_elements_are_read_back(elements in prop::collection::vec(element(), 1..4)) {
        let header = elements.iter().map(|pairs| write(pairs)).collect::<Vec<_>>().join(",");
        let last = elements.last().unwrap();
        let read = last_element(&header);
        prop_assert_eq!(read.as_ref(), Some(last), "{}", header);
    }

    #[test]
    fn what_precedes_the_last_element_never_adds_a_name(
        elements in prop::collection::vec(element(), 0..4),
    ) {
        let mut header: Vec<_> = elements.iter().map(|pairs| write(pairs)).collect();
        header.push("URI=spiffe://a/caller".to_owned());
        prop_assert_eq!(names(&header.join(",")).unwrap(), ["spiffe://a/caller"]);
    }
}
