use http::HeaderValue;

use super::*;

fn reader(header: MeshHeader) -> MeshHeaderReader {
    let trusted =
        ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"].map(|network| network.parse().unwrap());
    MeshHeaderReader::new(header, trusted.into())
}

fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    let line = |(name, value): &(HeaderName, &str)| {
        (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    lines.iter().map(line).collect()
}

fn primary(
    header: MeshHeader,
    lines: &[(HeaderName, &str)],
    peer: &str,
) -> Checked<Option<String>> {
    let identity = reader(header).identify(&headers(lines), peer.parse().unwrap())?;
    Ok(identity.map(|identity| identity.names().primary().to_owned()))
}

#[test]
fn a_header_is_believed_only_from_a_trusted_address() {
    let line = [(LINKERD_CLIENT_ID, "fleet.default.serviceaccount.identity.linkerd.cluster.local")];
    for (peer, is_trusted) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("::1", false),
        ("::10.1.2.3", false),
    ] {
        let name = primary(MeshHeader::LinkerdClientId, &line, peer).unwrap();
        assert_eq!(name.is_some(), is_trusted, "{peer}");
    }
    // Not even an error.
    let malformed = [(LINKERD_CLIENT_ID, "a b"), (LINKERD_CLIENT_ID, "c")];
    assert_eq!(primary(MeshHeader::LinkerdClientId, &malformed, "192.0.2.8"), Ok(None));
}

#[test]
fn only_the_configured_header_is_read() {
    let xfcc = (FORWARDED_CLIENT_CERT, "URI=spiffe://corp.example/a");
    let linkerd = (LINKERD_CLIENT_ID, "fleet.default");
    let both = [xfcc.clone(), linkerd.clone()];
    assert_eq!(
        primary(MeshHeader::LinkerdClientId, &both, "10.0.0.1").unwrap().unwrap(),
        "mesh:fleet.default"
    );
    assert_eq!(
        primary(MeshHeader::ForwardedClientCert, &both, "10.0.0.1").unwrap().unwrap(),
        "spiffe://corp.example/a"
    );
    assert_eq!(primary(MeshHeader::LinkerdClientId, &[xfcc], "10.0.0.1"), Ok(None));
}

#[test]
fn a_header_from_a_trusted_address_occurs_once_and_is_valid() {
    use AuthFailureReason::{MalformedHeader, NoName};
    let linkerd = |value| vec![(LINKERD_CLIENT_ID, value)];
    let xfcc = |value| vec![(FORWARDED_CLIENT_CERT, value)];
    for (header, lines, reason) in [
        (MeshHeader::LinkerdClientId, linkerd(""), NoName),
        (MeshHeader::LinkerdClientId, linkerd("a b"), MalformedHeader),
        (MeshHeader::LinkerdClientId, linkerd("a,b"), MalformedHeader),
        (MeshHeader::LinkerdClientId, linkerd("ä"), MalformedHeader),
        (MeshHeader::LinkerdClientId, [linkerd("a"), linkerd("a")].concat(), MalformedHeader),
        (MeshHeader::ForwardedClientCert, xfcc(""), NoName),
        (MeshHeader::ForwardedClientCert, xfcc("Hash=abc"), NoName),
        (MeshHeader::ForwardedClientCert, xfcc("URI=spiffe://corp.example/a;\""), MalformedHeader),
        (
            MeshHeader::ForwardedClientCert,
            [xfcc("URI=spiffe://corp.example/a"), xfcc("URI=spiffe://corp.example/b")].concat(),
            MalformedHeader,
        ),
    ] {
        assert_eq!(primary(header, &lines, "10.0.0.1"), Err(reason), "{lines:?}");
    }
}

#[test]
fn an_identity_from_a_header_is_valid_for_its_call() {
    let lines = headers(&[(LINKERD_CLIENT_ID, "a")]);
    let peer = "10.0.0.1".parse().unwrap();
    let identity = reader(MeshHeader::LinkerdClientId).identify(&lines, peer).unwrap().unwrap();
    assert_eq!((identity.method().name(), identity.expires_at()), ("mesh", None));
}
