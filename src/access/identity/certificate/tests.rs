use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType,
    string::Ia5String,
};

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn set_validity(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    let at =
        |seconds: i64| ASN1Time::from_timestamp(1_700_000_000 + seconds).unwrap().to_datetime();
    params.not_before = at(not_before);
    params.not_after = at(not_after);
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

fn params(names: Vec<SanType>, subject: &[(DnType, &str)]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.distinguished_name = DistinguishedName::new();
    for (attribute, value) in subject {
        params.distinguished_name.push(attribute.clone(), *value);
    }
    set_validity(&mut params, -60, 60);
    params
}

fn sign(params: CertificateParams) -> CertificateDer<'static> {
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn names_of(names: Vec<SanType>, subject: &[(DnType, &str)]) -> Checked<Vec<String>> {
    let identity = identify(&sign(params(names, subject)), NOW)?;
    assert_eq!(identity.expires_at(), Some(NOW.plus(Duration::from_secs(60))));
    Ok(identity.names().iter().map(|name| name.as_str().to_owned()).collect())
}

#[test]
fn a_certificate_has_the_names_of_its_spiffe_id_dns_names_and_subject() {
    let alternative = vec![
        dns("Client.Example.com"),
        dns("*.example.com"),
        uri("spiffe://corp.example/ns/fleet/sa/a"),
        dns("b.example"),
        SanType::IpAddress([192, 0, 2, 1].into()),
        SanType::Rfc822Name("a@example.com".try_into().unwrap()),
    ];
    let subject = [
        (DnType::CountryName, "US"),
        (DnType::OrganizationName, "Example, Inc."),
        (DnType::CommonName, "client"),
    ];
    assert_eq!(
        names_of(alternative, &subject).unwrap(),
        [
            "spiffe://corp.example/ns/fleet/sa/a",
            "dns:client.example.com",
            "dns:b.example",
            "subject:CN=client,O=Example\\, Inc.,C=US",
        ]
    );
}

#[test]
fn a_spiffe_id_is_the_only_uri_and_is_valid() {
    for uris in [
        vec![uri("spiffe://corp.example/a"), uri("spiffe://corp.example/b")],
        vec![uri("spiffe://corp.example/a"), uri("https://corp.example")],
        vec![uri("spiffe://corp.example")],
        vec![uri("SPIFFE://corp.example/a")],
        vec![uri("spiffe:corp.example/a"), dns("client.example")],
        vec![uri("spiffe://corp.example/a?b")],
    ] {
        let subject = [(DnType::CommonName, "client")];
        let refused = names_of(uris.clone(), &subject).unwrap_err();
        assert_eq!(refused, AuthFailureReason::MalformedCertificate, "{uris:?}");
    }
    let other = vec![uri("https://corp.example/a"), uri("urn:x")];
    assert_eq!(names_of(other, &[(DnType::CommonName, "c")]).unwrap(), ["subject:CN=c"]);
}

#[test]
fn a_certificate_needs_a_usable_name_and_has_at_most_64() {
    assert_eq!(names_of(vec![], &[]), Err(AuthFailureReason::NoName));
    assert_eq!(names_of(vec![dns("*.example")], &[]), Err(AuthFailureReason::NoName));
    let long = "x".repeat(600);
    assert_eq!(names_of(vec![], &[(DnType::CommonName, &long)]), Err(AuthFailureReason::NoName));
    let many = |count: usize| (0..count).map(|number| dns(&format!("n{number}"))).collect();
    assert_eq!(names_of(many(64), &[]).unwrap().len(), 64);
    assert_eq!(names_of(many(65), &[]), Err(AuthFailureReason::MalformedCertificate));
}

#[test]
fn a_subject_is_escaped_as_in_rfc_4514() {
    for (value, escaped) in [
        ("plain", "plain"),
        (" both ", "\\ both\\ "),
        ("#1", "\\#1"),
        ("a#1 b", "a#1 b"),
        ("a+b,c;d<e>f\"g\\h", "a\\+b\\,c\\;d\\<e\\>f\\\"g\\\\h"),
        ("a=b", "a=b"),
        ("line\nbreak\0", "line\\0abreak\\00"),
        ("Zoë", "Zoë"),
        ("x\u{85}", "x\\c2\\85"),
    ] {
        let names = names_of(vec![], &[(DnType::CommonName, value)]).unwrap();
        assert_eq!(names, [format!("subject:CN={escaped}")]);
    }
}

#[test]
fn unknown_attributes_and_other_encodings_are_hexadecimal() {
    let mut params = params(vec![], &[]);
    let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
    params.distinguished_name.push(unknown, DnValue::Utf8String("hi".to_owned()));
    let utf16 = DnValue::BmpString("hi".try_into().unwrap());
    params.distinguished_name.push(DnType::CommonName, utf16);
    let identity = identify(&sign(params), NOW).unwrap();
    assert_eq!(identity.names().primary(), "subject:CN=#1e0400680069,1.2.3.4=#0c026869");
}

#[test]
fn a_certificate_is_valid_from_not_before_until_not_after() {
    for (not_before, not_after, refused) in [
        (0, 1, None),
        (1, 2, Some(AuthFailureReason::NotYetValid)),
        (-2, 0, Some(AuthFailureReason::Expired)),
        (-3_000_000_000, -1, Some(AuthFailureReason::Expired)),
    ] {
        let mut params = params(vec![dns("a")], &[]);
        set_validity(&mut params, not_before, not_after);
        assert_eq!(identify(&sign(params), NOW).err(), refused);
    }
}

#[test]
fn a_certificate_that_cannot_be_parsed_is_refused() {
    let whole = sign(params(vec![dns("a")], &[]));
    let longer = CertificateDer::from([whole.as_ref(), &[0]].concat());
    let cut = CertificateDer::from(whole[..whole.len() - 1].to_vec());
    let mut broken = params(vec![], &[(DnType::CommonName, "c")]);
    let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 5, 0x82, 1]);
    broken.custom_extensions = vec![names];
    for certificate in [longer, cut, sign(broken), CertificateDer::from(vec![])] {
        let refused = identify(&certificate, NOW).unwrap_err();
        assert_eq!(refused, AuthFailureReason::MalformedCertificate);
    }
}
