//! Verifies bearer tokens.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode, errors::ErrorKind};
use serde::{Deserialize, de::IgnoredAny};
use thingspace_settings::Choice as _;

use crate::{
    access::identity::{
        Checked, Credential, Identity, SharedIdentity,
        jwt::{
            KeyId,
            key_set::{KeySet, KeySetError, MAX_SET_BYTES, VerificationKey},
            remote_keys::{EarlyRead, ReadTimes, RemoteKeys},
            token_cache::{TokenCache, TokenHash},
            trusted_keys::{KeySetChanges, TrustedKeys},
        },
        name::IdentityName,
    },
    config::{AuthConfig, JwtAlgorithm},
    domain::clock::{Clock, Timestamp},
    telemetry::AuthFailureReason,
};

/// Maximum length of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Latest time of `exp` and `nbf`, in seconds: the end of the year 9999.
const MAX_SECONDS: f64 = 253_402_300_799.0;

/// The conditions that a token must meet.
#[derive(Debug, Clone)]
pub(in crate::access::identity) struct TokenRules {
    /// Largest difference between the clocks of the issuer and the gateway.
    leeway: Duration,
    /// The rules of `jsonwebtoken` for each accepted algorithm.
    validations: Vec<(JwtAlgorithm, Validation)>,
}

/// Verifies tokens with the keys of the issuer.
pub(in crate::access::identity) struct TokenVerifier {
    rules: TokenRules,
    keys: Arc<TrustedKeys>,
    source: KeySource,
    cache: TokenCache,
    clock: Arc<dyn Clock>,
}

enum KeySource {
    File(PathBuf),
    Url(Box<RemoteKeys>),
}

/// The file of the key set cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the key set {}: {cause}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    cause: KeyFileCause,
}

#[derive(Debug, thiserror::Error)]
enum KeyFileCause {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Content(#[from] KeySetError),
}

/// The header of a token.
#[derive(Deserialize)]
struct TokenHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Extensions that the receiver must understand. The gateway knows none.
    crit: Option<IgnoredAny>,
}

/// The claims of a token that the gateway reads. `jsonwebtoken` compares `iss` and `aud`.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: f64,
    nbf: Option<f64>,
    // `jsonwebtoken` also accepts an array.
    #[serde(rename = "iss")]
    _iss: Option<String>,
}

impl TokenRules {
    /// Takes the rules from the settings.
    pub(in crate::access::identity) fn new(auth: &AuthConfig) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_issuer(auth.jwt_issuer.as_slice());
            validation.set_audience(auth.jwt_audience.as_slice());
            validation.set_required_spec_claims(&["iss", "aud"]);
            // These use the system clock. `check_times` uses the injected one.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation
        };
        let algorithms = auth.jwt_algorithms.iter();
        let validations = algorithms.map(|own| (*own, validation(library_algorithm(*own))));
        Self { leeway: auth.jwt_leeway, validations: validations.collect() }
    }
}

impl TokenVerifier {
    /// Takes the keys from a file, which must be readable.
    pub(in crate::access::identity) fn with_key_file(
        rules: TokenRules,
        path: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyFileError> {
        let keys = Arc::new(TrustedKeys::new());
        let source = KeySource::File(path);
        let verifier = Self { rules, keys, source, cache: TokenCache::default(), clock };
        verifier.reload()?;
        Ok(verifier)
    }

    /// Takes the keys from a URL, which [`TokenVerifier::run`] reads.
    pub(in crate::access::identity) fn with_key_url(
        rules: TokenRules,
        url: url::Url,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        Self::with_read_times(rules, url, clock, ReadTimes::default())
    }

    pub(super) fn with_read_times(
        rules: TokenRules,
        url: url::Url,
        clock: Arc<dyn Clock>,
        times: ReadTimes,
    ) -> Result<Self, reqwest::Error> {
        let keys = Arc::new(TrustedKeys::new());
        let source = KeySource::Url(Box::new(RemoteKeys::new(url, Arc::clone(&keys), times)?));
        Ok(Self { rules, keys, source, cache: TokenCache::default(), clock })
    }

    /// Reads the file of the key set again. Blocks. Does nothing if the keys come from a URL.
    pub(in crate::access::identity) fn reload(&self) -> Result<(), KeyFileError> {
        let KeySource::File(path) = &self.source else { return Ok(()) };
        let set =
            read_key_file(path).map_err(|cause| KeyFileError { path: path.clone(), cause })?;
        self.keys.replace(set);
        Ok(())
    }

    /// Reads the URL of the key set again and again, and empties the cache of tokens whose key was removed.
    /// Never returns.
    pub(in crate::access::identity) async fn run(&self) {
        let forget_removed_keys = async {
            let mut changes = self.keys.subscribe();
            loop {
                changes.changed().await;
                self.cache.retain(|identity| self.check_key(identity).is_ok());
            }
        };
        match &self.source {
            KeySource::File(_) => forget_removed_keys.await,
            KeySource::Url(remote) => {
                tokio::join!(remote.run(), forget_removed_keys);
            }
        }
    }

    /// Notifies of changes of the keys.
    pub(in crate::access::identity) fn subscribe(&self) -> KeySetChanges {
        self.keys.subscribe()
    }

    /// Verifies a token. Waits only if its key is unknown and the keys come from a URL.
    pub(in crate::access::identity) async fn verify(&self, token: &str) -> Checked<SharedIdentity> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthFailureReason::MalformedToken);
        }
        let hash = TokenHash::of(token);
        if let Some(identity) = self.cache.get(hash) {
            self.recheck(&identity)?;
            return Ok(identity);
        }
        let header = decode_header(token)?;
        let header: TokenHeader<'_> =
            serde_json::from_slice(&header).map_err(|_| AuthFailureReason::MalformedToken)?;
        let (algorithm, validation) = self.accepted_algorithm(&header)?;
        let keys = self.keys_with(algorithm, header.kid.as_deref()).await?;
        let candidates = keys.find(algorithm, header.kid.as_deref())?;
        let (claims, key) = verify_signature(token, &candidates, validation)?;
        let identity = Arc::new(self.identify(claims, key)?);
        self.cache.insert(hash, Arc::clone(&identity));
        Ok(identity)
    }

    /// Checks again that the key of a token is trusted, and that the token has not expired.
    pub(in crate::access::identity) fn recheck(&self, identity: &Identity) -> Checked<()> {
        self.check_key(identity)?;
        if identity.has_expired(self.clock.now()) {
            return Err(AuthFailureReason::Expired);
        }
        Ok(())
    }

    fn check_key(&self, identity: &Identity) -> Checked<()> {
        let Credential::Token(key) = identity.credential else {
            return Err(AuthFailureReason::UnknownKey);
        };
        let is_trusted = self.keys.current().is_some_and(|keys| keys.contains(key));
        if is_trusted { Ok(()) } else { Err(AuthFailureReason::UnknownKey) }
    }

    fn accepted_algorithm(&self, header: &TokenHeader<'_>) -> Checked<(JwtAlgorithm, &Validation)> {
        if header.crit.is_some() {
            return Err(AuthFailureReason::MalformedToken);
        }
        let mut accepted = self.rules.validations.iter();
        let found = accepted.find(|(algorithm, _)| algorithm.name() == header.alg);
        let (algorithm, validation) = found.ok_or(AuthFailureReason::Algorithm)?;
        Ok((*algorithm, validation))
    }

    /// Returns the keys in force. If they lack the key of the token, reads them again first.
    async fn keys_with(&self, algorithm: JwtAlgorithm, name: Option<&str>) -> Checked<Arc<KeySet>> {
        let is_known = || {
            self.keys.current().is_some_and(|keys| {
                keys.find(algorithm, name).err() != Some(AuthFailureReason::UnknownKey)
            })
        };
        if let KeySource::Url(remote) = &self.source
            && !is_known()
            && remote.read_early(is_known).await == EarlyRead::Busy
        {
            return Err(AuthFailureReason::KeysUnavailable);
        }
        self.keys.current().ok_or(AuthFailureReason::KeysUnavailable)
    }

    /// Checks the times of a token, and returns its identity.
    fn identify(&self, claims: Claims, key: KeyId) -> Checked<Identity> {
        let now = self.clock.now();
        let expires_at = timestamp(claims.exp)?.plus(self.rules.leeway);
        if let Some(not_before) = claims.nbf
            && now.plus(self.rules.leeway) < timestamp(not_before)?
        {
            return Err(AuthFailureReason::NotYetValid);
        }
        if expires_at <= now {
            return Err(AuthFailureReason::Expired);
        }
        let name = claims.sub.as_deref().map(IdentityName::jwt);
        let name = name.and_then(Result::ok).ok_or(AuthFailureReason::NoName)?;
        let credential = Credential::Token(key);
        Ok(Identity { names: name.into(), expires_at: Some(expires_at), credential })
    }
}

/// Decodes the first of the three parts of a token.
fn decode_header(token: &str) -> Checked<Vec<u8>> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(_), Some(_), None) => {
            URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthFailureReason::MalformedToken)
        }
        _ => Err(AuthFailureReason::MalformedToken),
    }
}

/// Verifies the signature with the first key that fits, then issuer and audience. Several keys fit only if
/// the issuer gives different keys one name.
fn verify_signature(
    token: &str,
    candidates: &[&VerificationKey],
    validation: &Validation,
) -> Checked<(Claims, KeyId)> {
    let mut reason = AuthFailureReason::UnknownKey;
    for key in candidates {
        match decode::<Claims>(token, &key.key, validation) {
            Ok(decoded) => return Ok((decoded.claims, key.id)),
            Err(error) => reason = reason_of(error.kind()),
        }
        if reason != AuthFailureReason::BadSignature {
            break;
        }
    }
    Err(reason)
}

fn reason_of(error: &ErrorKind) -> AuthFailureReason {
    match error {
        ErrorKind::InvalidSignature => AuthFailureReason::BadSignature,
        ErrorKind::InvalidIssuer => AuthFailureReason::WrongIssuer,
        ErrorKind::InvalidAudience => AuthFailureReason::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthFailureReason::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => {
            AuthFailureReason::WrongAudience
        }
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => AuthFailureReason::Algorithm,
        _ => AuthFailureReason::MalformedToken,
    }
}

/// Converts a `NumericDate`: seconds since 1970, which may have a fraction.
fn timestamp(seconds: f64) -> Checked<Timestamp> {
    let is_valid = (0.0..=MAX_SECONDS).contains(&seconds);
    let since = is_valid.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten();
    let since = since.ok_or(AuthFailureReason::MalformedToken)?;
    Ok(Timestamp::from_micros(0).plus(since))
}

fn read_key_file(path: &Path) -> Result<KeySet, KeyFileCause> {
    let limit = u64::try_from(MAX_SET_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut text)?;
    Ok(KeySet::parse(&text)?)
}

const fn library_algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests;
