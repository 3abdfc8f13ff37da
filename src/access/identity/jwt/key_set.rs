//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{access::identity::Checked, config::JwtAlgorithm, telemetry::AuthFailureReason};

/// Maximum size of a key set, in bytes.
pub(super) const MAX_SET_BYTES: usize = 1024 * 1024;
/// Maximum number of keys in a set, including unusable ones.
const MAX_KEYS: usize = 100;
/// Sizes of RSA keys that are accepted, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Identifies a key by its content: SHA-256 of its ID, algorithm and public values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::access::identity) struct KeyId([u8; 32]);

/// The usable keys of an issuer. Two sets with the same keys in the same order are equal.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
    unusable: usize,
}

/// A public key that verifies signatures of some algorithms.
#[derive(Debug)]
pub(super) struct VerificationKey {
    /// Identifies the content.
    pub(super) id: KeyId,
    /// The key, in the form that the verification needs.
    pub(super) key: DecodingKey,
    /// `kid`: the name that tokens refer to.
    name: Option<String>,
    kind: KeyKind,
    /// `alg`: the only algorithm that the key may be used with.
    algorithm: Option<JwtAlgorithm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A text that is not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("larger than 1 MiB")]
    TooLarge,
    #[error("expected a JSON object with an array `keys`")]
    NotAKeySet,
    #[error("expected at most 100 keys")]
    TooManyKeys,
}

/// The members of a key set.
#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<Value>,
}

impl KeySet {
    /// Parses a key set. Keys that cannot verify signatures are left out: unknown types, symmetric keys, keys
    /// for encryption, and keys that are too short.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let raw: RawKeySet = serde_json::from_slice(text).map_err(|_| KeySetError::NotAKeySet)?;
        if raw.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let count = raw.keys.len();
        let mut keys: Vec<VerificationKey> = Vec::new();
        for key in raw.keys.into_iter().filter_map(VerificationKey::parse) {
            if keys.iter().all(|other| other.id != key.id) {
                keys.push(key);
            }
        }
        let unusable = count.saturating_sub(keys.len());
        Ok(Self { keys, unusable })
    }

    /// True if the set contains a key with exactly this content.
    pub(super) fn contains(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Returns the keys that can have signed a token with this header.
    ///
    /// # Errors
    ///
    /// `UnknownKey` if no key has the name, or if the token names none and several keys fit. `Algorithm` if
    /// the named key does not fit the algorithm.
    pub(super) fn find(
        &self,
        algorithm: JwtAlgorithm,
        name: Option<&str>,
    ) -> Checked<Vec<&VerificationKey>> {
        let fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        let Some(name) = name else {
            let fitting: Vec<_> = fitting.collect();
            let is_definite = fitting.len() == 1;
            return is_definite.then_some(fitting).ok_or(AuthFailureReason::UnknownKey);
        };
        let has_name = |key: &VerificationKey| key.name.as_deref() == Some(name);
        let named: Vec<_> = fitting.filter(|key| has_name(key)).collect();
        match named.is_empty() {
            false => Ok(named),
            true if self.keys.iter().any(has_name) => Err(AuthFailureReason::Algorithm),
            true => Err(AuthFailureReason::UnknownKey),
        }
    }

    /// Number of usable keys.
    pub(super) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Number of keys that were left out.
    pub(super) const fn unusable(&self) -> usize {
        self.unusable
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }
}

impl VerificationKey {
    /// Parses a key. `None` if it cannot verify signatures.
    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let operations = common.key_operations.as_ref();
        if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return None;
        }
        let (kind, values) = KeyKind::of(&jwk)?;
        let algorithm = match common.key_algorithm {
            Some(algorithm) => Some(accepted(Algorithm::try_from(algorithm).ok()?)?),
            None => None,
        };
        if algorithm.is_some_and(|algorithm| KeyKind::for_algorithm(algorithm) != kind) {
            return None;
        }
        let name = common.key_id.clone();
        let mut hash = Context::new(&SHA256);
        let texts = [name.as_deref(), algorithm.map(algorithm_name)];
        let texts = texts.map(|text| text.map(str::as_bytes));
        for part in texts.into_iter().chain(values.iter().map(|value| Some(value.as_slice()))) {
            // The length keeps the parts apart.
            let length =
                part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
            hash.update(&length.to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let id = KeyId(hash.finish().as_ref().try_into().ok()?);
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id, key, name, kind, algorithm })
    }

    fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        KeyKind::for_algorithm(algorithm) == self.kind
            && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

impl KeyKind {
    /// The type of a key, and its public values. `None` for symmetric keys, unknown types and curves, and
    /// values of a wrong length.
    fn of(jwk: &Jwk) -> Option<(Self, Vec<Vec<u8>>)> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let (kind, values, length) = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                let (n, e) = (decode(&key.n)?, decode(&key.e)?);
                let size = n.iter().skip_while(|byte| **byte == 0).count();
                return (RSA_BYTES.contains(&size) && (1..=8).contains(&e.len()))
                    .then(|| (Self::Rsa, vec![n, e]));
            }
            AlgorithmParameters::EllipticCurve(key) => {
                let values = vec![decode(&key.x)?, decode(&key.y)?];
                match key.curve {
                    EllipticCurve::P256 => (Self::P256, values, 32),
                    EllipticCurve::P384 => (Self::P384, values, 48),
                    _ => return None,
                }
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Self::Ed25519, vec![decode(&key.x)?], 32)
            }
            _ => return None,
        };
        values.iter().all(|value| value.len() == length).then_some((kind, values))
    }

    const fn for_algorithm(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Rs256
            | JwtAlgorithm::Rs384
            | JwtAlgorithm::Rs512
            | JwtAlgorithm::Ps256
            | JwtAlgorithm::Ps384
            | JwtAlgorithm::Ps512 => Self::Rsa,
            JwtAlgorithm::Es256 => Self::P256,
            JwtAlgorithm::Es384 => Self::P384,
            JwtAlgorithm::EdDsa => Self::Ed25519,
        }
    }
}

/// The asymmetric algorithms. `None` for all others.
const fn accepted(algorithm: Algorithm) -> Option<JwtAlgorithm> {
    Some(match algorithm {
        Algorithm::RS256 => JwtAlgorithm::Rs256,
        Algorithm::RS384 => JwtAlgorithm::Rs384,
        Algorithm::RS512 => JwtAlgorithm::Rs512,
        Algorithm::PS256 => JwtAlgorithm::Ps256,
        Algorithm::PS384 => JwtAlgorithm::Ps384,
        Algorithm::PS512 => JwtAlgorithm::Ps512,
        Algorithm::ES256 => JwtAlgorithm::Es256,
        Algorithm::ES384 => JwtAlgorithm::Es384,
        Algorithm::EdDSA => JwtAlgorithm::EdDsa,
        _ => return None,
    })
}

fn algorithm_name(algorithm: JwtAlgorithm) -> &'static str {
    thingspace_settings::Choice::name(algorithm)
}

#[cfg(test)]
mod tests;
