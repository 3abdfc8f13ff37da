//! A bearer token from a client: any text, or a token that the issuer has signed.

use std::{
    fs,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::Value;
use thingspace_gateway::{
    access::identity::{
        AuthFailureReason, AuthMethod, AuthenticationError, Authenticator, Connection, Identity,
    },
    background::FileReloader,
    config::{Config, Sources},
    domain::clock::{Clock, Timestamp},
    telemetry::Instruments,
};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "gateway";
/// The time of all checks, in seconds since 1970.
const NOW: f64 = 1_700_000_000.0;
const LEEWAY: f64 = 30.0;

/// The key of the issuer, for tests only: the first key in section 7.1 of RFC 8032, in PKCS #8 and as a key
/// set.
const PRIVATE_KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }
}

static AUTHENTICATOR: LazyLock<Arc<Authenticator>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("keys.json");
    fs::write(&path, KEY_SET).expect("enough space");
    let sources = Sources::default()
        .with_flag("auth.mode", "jwt")
        .with_flag("auth.jwt_issuer", ISSUER)
        .with_flag("auth.jwt_audience", AUDIENCE)
        .with_flag("auth.jwt_jwks_file", path.display().to_string());
    let auth = Config::load(&sources).expect("valid settings").config.auth;
    let mut reloader = FileReloader::default();
    Authenticator::new(&auth, Arc::new(FixedClock), Instruments::noop(), &mut reloader)
        .expect("a valid key set")
        .expect("an authenticator")
});

pub fn check(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind {
        // The input is the token.
        b't' => {
            if let Ok(identity) = authenticate(&text) {
                check_accepted(&text, &identity);
            }
        }
        // The input has the claims, with a valid header.
        b'c' => check_signed(r#"{"alg":"EdDSA","kid":"k"}"#, &text),
        // The input has the header and the claims, in two lines.
        _ => {
            let (header, claims) = text.split_once('\n').unwrap_or((&text, ""));
            check_signed(header, claims);
        }
    }
}

/// True if a signed token with these claims is accepted: the checks reach accepted tokens.
pub fn accepts(claims: &str) -> bool {
    authenticate(&sign_token(r#"{"alg":"EdDSA","kid":"k"}"#, claims)).is_ok()
}

/// Checks a token that the issuer has signed, and the same token with another signature.
fn check_signed(header: &str, claims: &str) {
    let token = sign_token(header, claims);
    match authenticate(&token) {
        Ok(identity) => {
            check_accepted(&token, &identity);
            // A repeated token is in the cache.
            assert_eq!(authenticate(&token).as_ref(), Ok(&identity));
        }
        Err(error) => assert_eq!(authenticate(&token), Err(error)),
    }
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let forged: String = message.chars().chain(['.']).chain(signature.chars().rev()).collect();
    if forged != token {
        authenticate(&forged).expect_err("the signature is wrong");
    }
}

fn sign_token(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_ed_der(&PRIVATE_KEY);
    let signature = sign(message.as_bytes(), &key, Algorithm::EdDSA).expect("a signature");
    format!("{message}.{signature}")
}

/// An accepted token fulfils all rules. This check does not share the code of the verification.
fn check_accepted(token: &str, identity: &Identity) {
    let parts: Vec<_> = token.trim_matches(' ').split('.').collect();
    let [header, claims, _] = parts[..] else { panic!("{token}") };
    let (Some(header), Some(claims)) = (decode(header), decode(claims)) else { return };
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("crit").is_none_or(Value::is_null));
    assert!(header.get("kid").is_none_or(|kid| kid == "k" || kid.is_null()));
    assert_eq!(claims["iss"], ISSUER);
    let audience = &claims["aud"];
    let is_listed = audience.as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
    assert!(audience == AUDIENCE || is_listed);
    let seconds = |claim: &str| claims[claim].to_string().parse::<f64>().ok();
    assert!(seconds("exp").expect("a number") > NOW - LEEWAY);
    assert!(
        claims.get("nbf").is_none_or(Value::is_null)
            || seconds("nbf").expect("a number") <= NOW + LEEWAY
    );
    let name = format!("jwt:{}", claims["sub"].as_str().expect("a subject"));
    assert_eq!(identity.names().primary(), name);
    assert!(name.len() <= 512 && !name.chars().any(char::is_control));
    assert!(identity.expires_at() > Some(FixedClock.now()));
}

fn authenticate(token: &str) -> Result<Arc<Identity>, AuthenticationError> {
    let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
        let reason = AuthFailureReason::MalformedHeader;
        return Err(AuthenticationError { method: AuthMethod::Jwt, reason });
    };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    let connection = Connection {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certificate: None,
        is_certificate_trusted: false,
    };
    let authenticated = pin!(AUTHENTICATOR.authenticate(&headers, connection));
    match authenticated.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(identity)) => Ok(identity),
        Poll::Ready(Err(error)) => {
            assert!(error.method.failure_reasons().contains(&error.reason), "{error:?}");
            assert_eq!(error.method, AuthMethod::Jwt);
            Err(error)
        }
        Poll::Pending => panic!("keys from a file need no waiting"),
    }
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Decodes a part. `None` if it is nested deeper than serde_json's values may be: the gateway skips claims of
/// any depth.
fn decode(part: &str) -> Option<Value> {
    let text = URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&text).ok()
}
