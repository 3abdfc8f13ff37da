use std::sync::Arc;

use super::*;
use crate::access::identity::{Credential, Identity, IdentityName};

fn identity(name: &str) -> SharedIdentity {
    let names = IdentityName::jwt(name).unwrap().into();
    Arc::new(Identity { names, expires_at: None, credential: Credential::MeshHeader })
}

#[test]
fn a_token_is_found_by_its_hash() {
    let cache = TokenCache::default();
    cache.insert(TokenHash::of("a"), identity("first"));
    assert_eq!(cache.get(TokenHash::of("a")), Some(identity("first")));
    assert_eq!(cache.get(TokenHash::of("b")), None);
    cache.retain(|identity| identity.names().primary() != "jwt:first");
    assert_eq!(cache.get(TokenHash::of("a")), None);
}

#[test]
fn the_cache_is_bounded_and_keeps_tokens_that_are_used() {
    let cache = TokenCache::default();
    let used = TokenHash::of("used");
    cache.insert(used, identity("used"));
    for number in 0..3 * MAX_TOKENS {
        cache.insert(TokenHash::of(&number.to_string()), identity("x"));
        assert!(cache.get(used).is_some(), "{number}");
        assert!(cache.len() <= MAX_TOKENS);
    }
    assert_eq!(cache.get(TokenHash::of("0")), None);
}
