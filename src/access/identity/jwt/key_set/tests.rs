use serde_json::json;

use super::*;
use crate::access::identity::jwt::test_tokens::{TestKey, encode, key_set};

fn parse(keys: &[Value]) -> KeySet {
    KeySet::parse(key_set(keys).as_bytes()).unwrap()
}

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

#[test]
fn keys_of_all_accepted_types_are_usable() {
    let set = parse(&[
        TestKey::rsa().jwk("rsa"),
        TestKey::p256().jwk("p256"),
        TestKey::p384().jwk("p384"),
        TestKey::ed25519().jwk("ed"),
    ]);
    assert_eq!((set.len(), set.unusable()), (4, 0));
    for (name, algorithms) in [
        ("rsa", "RS256 RS384 RS512 PS256 PS384 PS512"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("ed", "EdDSA"),
    ] {
        for (text, algorithm) in <JwtAlgorithm as thingspace_settings::Choice>::ALL {
            let found = set.find(*algorithm, Some(name)).map(|keys| keys.len());
            let fits = algorithms.split(' ').any(|own| own == *text);
            let expected = if fits { Ok(1) } else { Err(AuthFailureReason::Algorithm) };
            assert_eq!(found, expected, "{name} {text}");
        }
    }
}

#[test]
fn keys_that_cannot_verify_signatures_are_left_out() {
    let rsa = TestKey::rsa().jwk("k");
    let p256 = TestKey::p256().jwk("k");
    let unusable = [
        json!({"kty": "oct", "kid": "k", "k": encode(&[7; 32]), "alg": "HS256"}),
        json!({"kty": "AKP", "kid": "k", "alg": "ML-DSA-44", "pub": "AAAA"}),
        json!({"kid": "k"}),
        json!("key"),
        json!(null),
        with(rsa.clone(), "use", json!("enc")),
        with(rsa.clone(), "use", json!("other")),
        with(rsa.clone(), "key_ops", json!(["encrypt"])),
        with(rsa.clone(), "key_ops", json!([])),
        with(rsa.clone(), "alg", json!("RSA-OAEP")),
        with(rsa.clone(), "alg", json!("HS256")),
        with(rsa.clone(), "alg", json!("none")),
        with(rsa.clone(), "alg", json!("ES256")),
        with(rsa.clone(), "n", json!(encode(&[0xff; 128]))),
        with(rsa.clone(), "n", json!(encode(&[0xff; 1025]))),
        with(rsa.clone(), "n", json!("not base64!")),
        with(rsa.clone(), "e", json!("")),
        with(rsa.clone(), "e", json!(3)),
        with(p256.clone(), "crv", json!("P-384")),
        with(p256.clone(), "crv", json!("secp256k1")),
        with(p256.clone(), "x", json!(encode(&[1; 31]))),
        with(p256.clone(), "y", json!(encode(&[1; 33]))),
        with(p256.clone(), "alg", json!("RS256")),
        with(TestKey::ed25519().jwk("k"), "x", json!(encode(&[1; 57]))),
    ];
    for key in &unusable {
        let set = parse(std::slice::from_ref(key));
        assert_eq!((set.len(), set.unusable()), (0, 1), "{key}");
    }
    // They do not disturb the others.
    let mut keys = unusable.to_vec();
    keys.extend([with(rsa, "use", json!("sig")), with(p256, "key_ops", json!(["verify"]))]);
    assert_eq!(parse(&keys).len(), 2);
}

#[test]
fn the_algorithm_of_a_key_is_the_only_one() {
    let set = parse(&[with(TestKey::rsa().jwk("k"), "alg", json!("PS256"))]);
    assert!(set.find(JwtAlgorithm::Ps256, Some("k")).is_ok());
    for other in [JwtAlgorithm::Rs256, JwtAlgorithm::Ps512, JwtAlgorithm::Es256] {
        assert_eq!(set.find(other, Some("k")).err(), Some(AuthFailureReason::Algorithm));
    }
}

#[test]
fn a_token_without_a_key_name_needs_exactly_one_fitting_key() {
    let find = |keys: &[Value]| parse(keys).find(JwtAlgorithm::Es256, None).map(|keys| keys.len());
    let (one, other) = (TestKey::p256().jwk("a"), TestKey::p256().jwk("b"));
    let rsa = TestKey::rsa().jwk("c");
    assert_eq!(find(&[one.clone(), rsa.clone()]), Ok(1));
    // The same key twice is one key.
    assert_eq!(find(&[one.clone(), one.clone()]), Ok(1));
    assert_eq!(find(&[one, other]), Err(AuthFailureReason::UnknownKey));
    assert_eq!(find(&[rsa]), Err(AuthFailureReason::UnknownKey));
}

#[test]
fn a_key_is_identified_by_its_content() {
    let (one, other) = (TestKey::p256().jwk("a"), TestKey::p256().jwk("a"));
    let ids = [
        one.clone(),
        other,
        with(one.clone(), "kid", json!("b")),
        with(one.clone(), "alg", json!("ES256")),
    ]
    .map(|key| parse(&[key]).keys[0].id);
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "{index}");
    }
    let set = parse(&[with(one.clone(), "x5t", json!("anything"))]);
    assert!(set.contains(ids[0]) && !set.contains(ids[1]));
    assert_eq!(set, parse(&[one]));
}

#[test]
fn a_key_set_is_a_bounded_json_object() {
    for (text, error) in [
        ("", KeySetError::NotAKeySet),
        ("[]", KeySetError::NotAKeySet),
        ("{}", KeySetError::NotAKeySet),
        (r#"{"keys": {}}"#, KeySetError::NotAKeySet),
        (r#"{"keys": [], "keys": []}"#, KeySetError::NotAKeySet),
        (r#"{"keys": []} x"#, KeySetError::NotAKeySet),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes()).err(), Some(error), "{text}");
    }
    let nested = format!("{{\"keys\": [{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(KeySet::parse(nested.as_bytes()).err(), Some(KeySetError::NotAKeySet));
    let large = format!("{{\"keys\": []}}{}", " ".repeat(MAX_SET_BYTES));
    assert_eq!(KeySet::parse(large.as_bytes()).err(), Some(KeySetError::TooLarge));
    let many = key_set(&vec![json!({}); 101]);
    assert_eq!(KeySet::parse(many.as_bytes()).err(), Some(KeySetError::TooManyKeys));
    assert_eq!(parse(&[]).len(), 0);
}
