//! Identities of verified tokens, so that the signature of a token is verified once and not for each call.

use std::{collections::HashMap, mem};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;

use crate::access::identity::SharedIdentity;

/// Maximum number of tokens. An entry takes at most 1 KiB.
const MAX_TOKENS: usize = 10_000;

/// SHA-256 of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

/// A bounded cache. When the recent half is full, it replaces the older half.
#[derive(Default)]
pub(super) struct TokenCache(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    recent: HashMap<TokenHash, SharedIdentity>,
    older: HashMap<TokenHash, SharedIdentity>,
}

impl TokenHash {
    /// Hashes a token.
    pub(super) fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        let digest = digest(&SHA256, token.as_bytes());
        hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(hash)
    }
}

impl TokenCache {
    /// Returns the identity of a token. It may have expired, and its key may have been removed since.
    pub(super) fn get(&self, token: TokenHash) -> Option<SharedIdentity> {
        let mut halves = self.0.lock();
        if let Some(identity) = halves.recent.get(&token) {
            return Some(identity.clone());
        }
        let identity = halves.older.remove(&token)?;
        halves.insert(token, identity.clone());
        Some(identity)
    }

    /// Adds a verified token.
    pub(super) fn insert(&self, token: TokenHash, identity: SharedIdentity) {
        self.0.lock().insert(token, identity);
    }

    /// Keeps only these identities.
    pub(super) fn retain(&self, keep: impl Fn(&SharedIdentity) -> bool) {
        let mut halves = self.0.lock();
        halves.recent.retain(|_, identity| keep(identity));
        halves.older.retain(|_, identity| keep(identity));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.0.lock();
        halves.recent.len() + halves.older.len()
    }
}

impl Halves {
    fn insert(&mut self, token: TokenHash, identity: SharedIdentity) {
        if self.recent.len() >= MAX_TOKENS / 2 {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(token, identity);
    }
}

#[cfg(test)]
mod tests;
