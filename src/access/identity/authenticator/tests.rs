use std::fs;

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    access::identity::jwt::test_tokens::{AUDIENCE, ISSUER, TestClock, TestKey, claims, key_set},
    config::{Config, Sources},
    telemetry::Telemetry,
};

const MESH: &str = "10.0.0.1";
const ELSEWHERE: &str = "192.0.2.1";

/// An authenticator of an issuer's tokens, certificates and Linkerd's header from 10.0.0.0/8.
struct Fixture {
    authenticator: Arc<Authenticator>,
    clock: Arc<TestClock>,
    key: TestKey,
    certificate: CertificateDer<'static>,
    _directory: TempDir,
}

impl Fixture {
    fn new(modes: &str) -> Self {
        Self::with_instruments(modes, Instruments::noop())
    }

    fn with_instruments(modes: &str, instruments: Instruments) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = TestKey::ed25519();
        let path = directory.path().join("keys.json");
        fs::write(&path, key_set(&[key.jwk("k")])).unwrap();
        let sources = Sources::default()
            .with_flag("auth.mode", modes)
            .with_flag("auth.jwt_issuer", ISSUER)
            .with_flag("auth.jwt_audience", AUDIENCE)
            .with_flag("auth.jwt_jwks_file", path.to_str().unwrap())
            .with_flag("auth.mesh_header", "l5d-client-id")
            .with_flag("auth.mesh_trusted_cidrs", "10.0.0.0/8");
        let auth = Config::load(&sources).unwrap().config.auth;
        let clock = Arc::new(TestClock::new());
        let mut reloader = FileReloader::default();
        let set_up = Authenticator::new(&auth, clock.clone(), instruments, &mut reloader);
        let authenticator = set_up.unwrap().unwrap();
        let params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = certificate.der().clone();
        Self { authenticator, clock, key, certificate, _directory: directory }
    }

    fn all() -> Self {
        Self::new("mtls,jwt,mesh")
    }

    fn token(&self) -> String {
        self.key.token(&json!({"alg": "EdDSA", "kid": "k"}), &claims("fleet"))
    }

    fn connection(&self, address: &str, has_certificate: bool) -> Connection<'_> {
        Connection {
            address: address.parse().unwrap(),
            certificate: has_certificate.then_some(&self.certificate),
            is_certificate_trusted: true,
        }
    }

    fn authenticate(
        &self,
        lines: &[(&'static str, &str)],
        connection: Connection<'_>,
    ) -> Result<Arc<Identity>, AuthenticationError> {
        let lines = lines.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let headers: HeaderMap = lines.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
        self.authenticator.authenticate(&headers, connection).now_or_never().unwrap()
    }

    /// The primary name, or the method and the reason of the refusal.
    fn outcome(&self, lines: &[(&'static str, &str)], connection: Connection<'_>) -> String {
        match self.authenticate(lines, connection) {
            Ok(identity) => identity.names().primary().to_owned(),
            Err(error) => format!("{} {}", error.method.name(), error.reason.name()),
        }
    }
}

#[test]
fn a_bearer_token_precedes_a_mesh_header_which_precedes_a_certificate() {
    let fixture = Fixture::all();
    let bearer = format!("Bearer {}", fixture.token());
    let token = ("authorization", bearer.as_str());
    let bad_token = ("authorization", "Bearer x");
    let mesh = ("l5d-client-id", "fleet.mesh");
    let bad_mesh = ("l5d-client-id", "not an id");
    for (lines, address, has_certificate, expected) in [
        (vec![token, mesh], MESH, true, "jwt:fleet"),
        (vec![token, bad_mesh], MESH, true, "jwt:fleet"),
        (vec![mesh], MESH, true, "mesh:fleet.mesh"),
        (vec![], MESH, true, "dns:client.example"),
        (vec![], ELSEWHERE, true, "dns:client.example"),
        // A rejected value is not replaced.
        (vec![bad_token, mesh], MESH, true, "jwt malformed_token"),
        (vec![bad_mesh], MESH, true, "mesh malformed_header"),
        // An untrusted header is as if absent.
        (vec![mesh], ELSEWHERE, true, "dns:client.example"),
        (vec![bad_mesh], ELSEWHERE, false, "none no_credential"),
        (vec![], MESH, false, "none no_credential"),
    ] {
        let connection = fixture.connection(address, has_certificate);
        assert_eq!(fixture.outcome(&lines, connection), expected, "{lines:?} {address}");
    }
}

#[test]
fn credentials_that_are_not_accepted_are_ignored() {
    for (modes, expected) in [
        ("jwt", "jwt malformed_token"),
        ("mesh", "mesh:fleet.mesh"),
        ("mtls", "dns:client.example"),
        ("mesh,mtls", "mesh:fleet.mesh"),
    ] {
        let fixture = Fixture::new(modes);
        let lines = [("authorization", "Bearer x"), ("l5d-client-id", "fleet.mesh")];
        assert_eq!(fixture.outcome(&lines, fixture.connection(MESH, true)), expected, "{modes}");
    }
    let fixture = Fixture::new("jwt");
    let mesh = [("l5d-client-id", "fleet.mesh")];
    assert_eq!(fixture.outcome(&mesh, fixture.connection(MESH, true)), "none no_credential");
}

#[test]
fn the_authorization_header_occurs_once_and_has_the_scheme_bearer() {
    let fixture = Fixture::all();
    let token = fixture.token();
    let connection = fixture.connection(ELSEWHERE, false);
    for (value, expected) in [
        (format!("Bearer {token}"), "jwt:fleet"),
        (format!("bearer {token}"), "jwt:fleet"),
        (format!("BEARER   {token} "), "jwt:fleet"),
        (format!("Bearer{token}"), "jwt malformed_header"),
        (token.clone(), "jwt malformed_header"),
        (format!("Basic {token}"), "jwt malformed_header"),
        ("Basic dXNlcjpwYXNz".to_owned(), "jwt malformed_header"),
        (String::new(), "jwt malformed_header"),
        ("Bearer".to_owned(), "jwt malformed_header"),
        ("Bearer ".to_owned(), "jwt malformed_token"),
        (format!("Bearer {token}, Bearer {token}"), "jwt malformed_token"),
        ("Bearer é".to_owned(), "jwt malformed_header"),
    ] {
        let lines = [("authorization", value.as_str())];
        assert_eq!(fixture.outcome(&lines, connection), expected, "{value}");
    }
    let bearer = format!("Bearer {token}");
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(fixture.outcome(&twice, connection), "jwt malformed_header");
}

#[test]
fn a_certificate_whose_ca_was_removed_is_refused() {
    let fixture = Fixture::all();
    let trusted = fixture.connection(ELSEWHERE, true);
    let removed = Connection { is_certificate_trusted: false, ..trusted };
    assert_eq!(fixture.outcome(&[], removed), "mtls untrusted_certificate");
    let garbage = CertificateDer::from(vec![1, 2, 3]);
    let malformed = Connection { certificate: Some(&garbage), ..trusted };
    assert_eq!(fixture.outcome(&[], malformed), "mtls malformed_certificate");
    // An open stream.
    let identity = fixture.authenticate(&[], trusted).unwrap();
    assert_eq!(fixture.authenticator.recheck(&identity, trusted), Ok(()));
    let error = fixture.authenticator.recheck(&identity, removed).unwrap_err();
    assert_eq!(error.reason, AuthFailureReason::UntrustedCertificate);
}

#[test]
fn an_identity_ends_with_its_credential() {
    let fixture = Fixture::all();
    let connection = fixture.connection(MESH, true);
    let bearer = format!("Bearer {}", fixture.token());
    let token = fixture.authenticate(&[("authorization", &bearer)], connection).unwrap();
    let mesh = fixture.authenticate(&[("l5d-client-id", "fleet")], connection).unwrap();
    let certificate = fixture.authenticate(&[], connection).unwrap();
    assert_eq!(fixture.authenticator.recheck(&token, connection), Ok(()));

    fixture.clock.advance(90);
    let error = fixture.authenticator.recheck(&token, connection).unwrap_err();
    assert_eq!((error.method, error.reason), (AuthMethod::Jwt, AuthFailureReason::Expired));
    assert_eq!(fixture.authenticator.recheck(&certificate, connection), Ok(()));

    // rcgen's certificates end in the year 4096.
    fixture.clock.advance(3000 * 366 * 24 * 60 * 60);
    let error = fixture.authenticator.recheck(&certificate, connection).unwrap_err();
    assert_eq!((error.method, error.reason), (AuthMethod::Mtls, AuthFailureReason::Expired));
    assert_eq!(fixture.authenticator.recheck(&mesh, connection), Ok(()));
}

#[test]
fn the_message_of_an_error_never_repeats_the_credential() {
    let fixture = Fixture::all();
    let secret = "hush7f3a9c";
    let header = json!({"alg": "EdDSA", "kid": secret});
    let mut expired = claims(secret);
    expired["exp"] = json!(1);
    for token in [
        secret.to_owned(),
        fixture.key.token(&header, &claims(secret)),
        fixture.key.token(&json!({"alg": secret}), &claims(secret)),
        fixture.key.token(&json!({"alg": "EdDSA"}), &expired),
    ] {
        let lines = [("authorization", &*format!("Bearer {token}"))];
        let error = fixture.authenticate(&lines, fixture.connection(MESH, false)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    for method in AuthMethod::ALL {
        for reason in method.failure_reasons() {
            let text = AuthenticationError { method, reason: *reason }.to_string();
            assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
        }
    }
}

#[test]
fn failures_are_counted_and_every_series_exists_from_the_start() {
    let telemetry = Telemetry::metrics_only().unwrap();
    let instruments = telemetry.instruments();
    let sample = |method: &str, reason: &str| {
        let labels = [("method", method), ("reason", reason)]
            .map(|(label, value)| format!("thingspace_gateway_{label}=\"{value}\""));
        format!("thingspace_gateway_auth_failures_total{{{}", labels.join(","))
    };
    let exposition = telemetry.exposition().unwrap();
    for method in AuthMethod::ALL {
        for reason in method.failure_reasons() {
            let line = exposition
                .lines()
                .find(|line| line.starts_with(&sample(method.name(), reason.name())));
            assert!(line.unwrap().ends_with("} 0"), "{line:?}");
        }
    }
    let fixture = Fixture::with_instruments("mtls,jwt,mesh", instruments);
    let connection = fixture.connection(MESH, false);
    fixture.authenticate(&[], connection).unwrap_err();
    fixture.authenticate(&[("authorization", "Bearer x")], connection).unwrap_err();
    fixture.authenticate(&[("authorization", "Bearer y")], connection).unwrap_err();
    fixture.authenticate(&[("l5d-client-id", "fleet")], connection).unwrap();
    let exposition = telemetry.exposition().unwrap();
    for (method, reason, count) in
        [("none", "no_credential", 1), ("jwt", "malformed_token", 2), ("mesh", "no_name", 0)]
    {
        let line = exposition.lines().find(|line| line.starts_with(&sample(method, reason)));
        assert!(line.unwrap().ends_with(&format!("}} {count}")), "{line:?}");
    }
}

#[test]
fn without_authentication_there_is_no_authenticator() {
    let auth = Config::load(&Sources::default()).unwrap().config.auth;
    let mut reloader = FileReloader::default();
    let clock = Arc::new(TestClock::new());
    let set_up = Authenticator::new(&auth, clock, Instruments::noop(), &mut reloader);
    assert!(set_up.unwrap().is_none());
}

#[test]
fn a_key_file_that_cannot_be_read_stops_the_start() {
    let auth = crate::access::identity::jwt::test_tokens::auth_config(&[(
        "auth.jwt_jwks_file",
        "/nonexistent/keys.json",
    )]);
    let mut reloader = FileReloader::default();
    let clock = Arc::new(TestClock::new());
    let set_up = Authenticator::new(&auth, clock, Instruments::noop(), &mut reloader);
    let error = set_up.err().unwrap().to_string();
    assert!(
        error.starts_with("auth.jwt_jwks_file: cannot read the key set /nonexistent"),
        "{error}"
    );
}
