//! Keys and tokens of an issuer, for tests. Signs without the crate that verifies.

use std::sync::{
    OnceLock,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    config::{AuthConfig, Config, Sources},
    domain::clock::{Clock, Timestamp},
};

pub(in crate::access::identity) const ISSUER: &str = "https://issuer.example";
pub(in crate::access::identity) const AUDIENCE: &str = "thingspace-gateway";
/// The time of [`TestClock`] at its start, in seconds since 1970.
pub(in crate::access::identity) const NOW: i64 = 1_700_000_000;

/// A clock that only tests move.
pub(in crate::access::identity) struct TestClock(AtomicI64);

/// A key pair of an issuer.
pub(in crate::access::identity) enum TestKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl TestClock {
    pub(in crate::access::identity) fn new() -> Self {
        Self(AtomicI64::new(NOW * 1_000_000))
    }

    pub(in crate::access::identity) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst))
    }
}

impl TestKey {
    /// An RSA key, which takes long to make: one for all tests.
    pub(in crate::access::identity) fn rsa() -> &'static Self {
        static KEY: OnceLock<TestKey> = OnceLock::new();
        KEY.get_or_init(|| Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(in crate::access::identity) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(in crate::access::identity) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(in crate::access::identity) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key as a JSON Web Key.
    pub(in crate::access::identity) fn jwk(&self, name: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": name, "n": encode(&parts.n), "e": encode(&parts.e)})
            }
            Self::P256(pair) => ec_jwk(name, "P-256", pair),
            Self::P384(pair) => ec_jwk(name, "P-384", pair),
            Self::Ed25519(pair) => {
                let x = encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": name, "x": x})
            }
        }
    }

    /// A token with this header and these claims, with the signature algorithm of the header's `alg` if the
    /// key has it, and otherwise the usual one of the key.
    pub(in crate::access::identity) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of_texts(&header.to_string(), &claims.to_string())
    }

    /// A token of any texts.
    pub(in crate::access::identity) fn token_of_texts(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.sign(message.as_bytes(), header);
        format!("{message}.{}", encode(&signature))
    }

    fn sign(&self, message: &[u8], header: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match header {
                    header if header.contains("RS384") => &signature::RSA_PKCS1_SHA384,
                    header if header.contains("RS512") => &signature::RSA_PKCS1_SHA512,
                    header if header.contains("PS256") => &signature::RSA_PSS_SHA256,
                    header if header.contains("PS384") => &signature::RSA_PSS_SHA384,
                    header if header.contains("PS512") => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn ec_jwk(name: &str, curve: &str, pair: &EcdsaKeyPair) -> Value {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "kid": name, "x": encode(x), "y": encode(y)})
}

pub(in crate::access::identity) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key set of these keys.
pub(in crate::access::identity) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The claims of a valid token.
pub(in crate::access::identity) fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": NOW + 60})
}

/// Settings that accept tokens, with these additional settings.
pub(in crate::access::identity) fn auth_config(settings: &[(&'static str, &str)]) -> AuthConfig {
    let mut sources = Sources::default()
        .with_flag("auth.mode", "jwt")
        .with_flag("auth.jwt_issuer", ISSUER)
        .with_flag("auth.jwt_audience", AUDIENCE);
    for (key, value) in settings {
        sources = sources.with_flag(*key, *value);
    }
    Config::load(&sources).unwrap().config.auth
}
