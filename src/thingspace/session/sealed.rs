//! Encrypts the token and the session for a store that other replicas read.

use std::time::Duration;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, Salt},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{clock::Timestamp, refusal::Refusal},
    thingspace::credentials::ThingSpaceCredentials,
};

/// Salt of the key derivation.
const SALT: &[u8] = b"thingspace-gateway";
/// Purpose of the derived key.
const KEY_PURPOSE: &[u8] = b"shared ThingSpace session, AES-256-GCM";
/// The first byte of an encrypted value: the version of its format.
const FORMAT: u8 = 1;

/// The state of the log-in that the replicas share. Its times are on the clock of the store.
#[derive(Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SharedLogin {
    pub(super) token: Option<SharedToken>,
    pub(super) session: Option<String>,
    pub(super) refusal_retry: Option<SharedRetry>,
    pub(super) token_retry: Option<SharedRetry>,
    pub(super) session_retry: Option<SharedRetry>,
}

/// A token and its times.
#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct SharedToken {
    pub(super) text: String,
    pub(super) expires_at: Timestamp,
    pub(super) lifetime: Duration,
}

/// The retry of a failed log-in.
#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct SharedRetry {
    pub(super) failures: u32,
    pub(super) failed_at: Timestamp,
    pub(super) due: Timestamp,
    pub(super) refusal: Refusal,
}

impl SharedLogin {
    /// Encrypts the state. Only gateways with the same credentials can decrypt it.
    pub(super) fn seal(&self, credentials: &ThingSpaceCredentials) -> Option<Vec<u8>> {
        let mut content = serde_json::to_vec(self).ok()?;
        let aad = Aad::from(additional_data(credentials));
        let nonce = key(credentials)?.seal_in_place_append_tag(aad, &mut content).ok()?;
        Some([&[FORMAT], nonce.as_ref().as_slice(), &content].concat())
    }

    /// Decrypts a stored state. Returns `None` if other credentials encrypted it or if it is damaged.
    pub(super) fn unseal(value: &[u8], credentials: &ThingSpaceCredentials) -> Option<Self> {
        let (&[FORMAT], sealed) = value.split_first_chunk()? else {
            return None;
        };
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut content = content.to_vec();
        let aad = Aad::from(additional_data(credentials));
        let nonce = Nonce::from(nonce);
        let content = key(credentials)?.open_in_place(nonce, aad, &mut content).ok()?;
        serde_json::from_slice(content).ok()
    }
}

/// Derives the key from the application secret.
fn key(credentials: &ThingSpaceCredentials) -> Option<RandomizedNonceKey> {
    let secret = credentials.app_secret.expose_secret().as_bytes();
    let derived = Salt::new(HKDF_SHA256, SALT).extract(secret);
    let mut key = [0; 32];
    derived.expand(&[KEY_PURPOSE], &AES_256_GCM).ok()?.fill(&mut key).ok()?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
}

/// Binds a value to the application and the user. Includes the password: a session that another password
/// opened does not prove that this one is correct.
fn additional_data(credentials: &ThingSpaceCredentials) -> Vec<u8> {
    let ThingSpaceCredentials { app_key, app_secret: _, uws_username, uws_password } = credentials;
    let with_length = |secret: &SecretString| {
        let text = secret.expose_secret().as_bytes();
        [&text.len().to_be_bytes(), text].concat()
    };
    [app_key, uws_username, uws_password].map(with_length).concat()
}

#[cfg(test)]
mod tests;
