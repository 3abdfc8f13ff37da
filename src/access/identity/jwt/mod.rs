//! Bearer tokens: JSON Web Tokens that an issuer has signed.
//!
//! `verifier` checks a token with a key of `key_set`, and keeps its identity in `token_cache`.
//! `trusted_keys` holds the keys in force, which come from a file or from a URL (`remote_keys`).

mod key_set;
mod remote_keys;
mod token_cache;
mod trusted_keys;
mod verifier;

pub use self::trusted_keys::KeySetChanges;
pub(super) use self::{
    key_set::KeyId,
    verifier::{KeyFileError, TokenRules, TokenVerifier},
};
#[cfg(test)]
pub(super) mod test_tokens;
