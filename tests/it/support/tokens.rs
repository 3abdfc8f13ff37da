//! An issuer of bearer tokens, also of tokens that must be refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://issuer.test.example";
pub const AUDIENCE: &str = "thingspace-gateway";

/// An issuer with one key for ES256.
pub struct Issuer {
    key: EcdsaKeyPair,
    kid: String,
}

impl Issuer {
    pub fn new(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { key, kid: kid.to_owned() }
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
                "x": encode(x), "y": encode(y) })
    }

    /// A valid token of this subject, for an hour.
    pub fn token(&self, subject: &str) -> String {
        self.token_until(subject, now() + Duration::from_secs(3_600))
    }

    /// A token that expires at this time since the Unix epoch.
    pub fn token_until(&self, subject: &str, expiry: Duration) -> String {
        self.sign(&claims(subject, expiry))
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid });
        self.sign_with(&header, claims)
    }

    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", encode(signature.as_ref()))
    }

    /// A token without a signature.
    pub fn unsigned(&self, claims: &Value) -> String {
        format!("{}.", message(&json!({ "alg": "none", "kid": self.kid }), claims))
    }

    /// A token whose HMAC key is the public key of the issuer.
    pub fn confused(&self, claims: &Value) -> String {
        let message = message(&json!({ "alg": "HS256", "kid": self.kid }), claims);
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_key().as_ref());
        format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes()).as_ref()))
    }
}

/// A key set of these issuers.
pub fn key_set(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

pub fn claims(subject: &str, expiry: Duration) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": expiry.as_secs() })
}

/// The present time since the Unix epoch.
pub fn now() -> Duration {
    #[allow(clippy::disallowed_methods, reason = "tokens have times of the day")]
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
