use std::{fs, time::Duration};

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::access::identity::jwt::test_tokens::{
    AUDIENCE, ISSUER, NOW, TestClock, TestKey, auth_config, claims, encode, key_set,
};

/// A verifier with the keys `rsa`, `p256`, `p384` and `ed` in a file.
struct Fixture {
    verifier: TokenVerifier,
    clock: Arc<TestClock>,
    directory: TempDir,
    p256: TestKey,
    p384: TestKey,
    ed: TestKey,
}

impl Fixture {
    fn new() -> Self {
        Self::with_settings(&[])
    }

    fn with_settings(settings: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (p256, p384, ed) = (TestKey::p256(), TestKey::p384(), TestKey::ed25519());
        let keys = [TestKey::rsa().jwk("rsa"), p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed")];
        let path = directory.path().join("keys.json");
        fs::write(&path, key_set(&keys)).unwrap();
        let clock = Arc::new(TestClock::new());
        let rules = TokenRules::new(&auth_config(settings));
        let verifier = TokenVerifier::with_key_file(rules, path, clock.clone()).unwrap();
        Self { verifier, clock, directory, p256, p384, ed }
    }

    fn verify(&self, token: &str) -> Checked<SharedIdentity> {
        self.verifier.verify(token).now_or_never().expect("a file needs no waiting")
    }

    fn reason(&self, token: &str) -> AuthFailureReason {
        self.verify(token).expect_err(token)
    }

    /// Verifies a valid token whose claims are changed.
    fn verify_claims(&self, change: impl FnOnce(&mut Value)) -> Checked<SharedIdentity> {
        let mut claims = claims("fleet");
        change(&mut claims);
        self.verify(&self.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims))
    }

    fn write_keys(&self, keys: &[Value]) {
        fs::write(self.directory.path().join("keys.json"), key_set(keys)).unwrap();
    }
}

#[test]
fn tokens_of_every_algorithm_are_accepted_if_it_is_configured() {
    let all = "RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,EdDSA";
    let fixture = Fixture::with_settings(&[("auth.jwt_algorithms", all)]);
    let default = Fixture::new();
    for algorithm in all.split(',') {
        let (name, key, default_key) = match algorithm {
            "ES256" => ("p256", &fixture.p256, &default.p256),
            "ES384" => ("p384", &fixture.p384, &default.p384),
            "EdDSA" => ("ed", &fixture.ed, &default.ed),
            _ => ("rsa", TestKey::rsa(), TestKey::rsa()),
        };
        let header = json!({"typ": "JWT", "alg": algorithm, "kid": name});
        let identity = fixture.verify(&key.token(&header, &claims("fleet"))).expect(algorithm);
        assert_eq!(identity.names().primary(), "jwt:fleet");
        assert_eq!(identity.method().name(), "jwt");
        assert_eq!(
            identity.expires_at(),
            Some(Timestamp::from_micros((NOW + 60 + 30) * 1_000_000))
        );

        let in_default = default.verify(&default_key.token(&header, &claims("fleet"))).err();
        let is_default = ["RS256", "ES256", "EdDSA"].contains(&algorithm);
        assert_eq!(
            in_default,
            (!is_default).then_some(AuthFailureReason::Algorithm),
            "{algorithm}"
        );
    }
}

#[test]
fn a_token_without_a_valid_signature_is_refused() {
    let fixture = Fixture::new();
    let good = fixture.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet"));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = encode(claims("admin").to_string().as_bytes());
    let stranger = TestKey::ed25519();
    for token in [
        format!("{header}.{other}.{signature}"),
        format!("{message}."),
        format!("{message}.{}", encode(&[0; 64])),
        format!("{message}.{}", encode(b"short")),
        stranger.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet")),
        // A key in the header is not believed.
        stranger.token(
            &json!({"alg": "EdDSA", "kid": "ed", "jwk": stranger.jwk("ed")}),
            &claims("fleet"),
        ),
        TestKey::rsa().token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet")),
    ] {
        assert_eq!(fixture.reason(&token), AuthFailureReason::BadSignature, "{token}");
    }
}

#[test]
fn an_algorithm_outside_the_settings_is_refused() {
    let fixture = Fixture::new();
    let claims = claims("fleet");
    for algorithm in ["none", "None", "NONE", "", "HS256", "HS512", "ES512", "RS384", "rs256", "XX"]
    {
        let header = json!({"alg": algorithm, "kid": "rsa"});
        for token in [
            TestKey::rsa().token(&header, &claims),
            format!(
                "{}.{}.",
                encode(header.to_string().as_bytes()),
                encode(claims.to_string().as_bytes())
            ),
        ] {
            assert_eq!(fixture.reason(&token), AuthFailureReason::Algorithm, "{algorithm}");
        }
    }
}

#[test]
fn a_public_key_is_never_the_secret_of_an_hmac() {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

    let fixture = Fixture::new();
    let rsa = TestKey::rsa().jwk("rsa");
    let secrets = [
        fs::read(fixture.directory.path().join("keys.json")).unwrap(),
        rsa.to_string().into_bytes(),
        rsa["n"].as_str().unwrap().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap(),
    ];
    for secret in secrets {
        for (algorithm, reason) in
            [("HS256", AuthFailureReason::Algorithm), ("RS256", AuthFailureReason::BadSignature)]
        {
            let header = json!({"alg": algorithm, "kid": "rsa"}).to_string();
            let message = format!(
                "{}.{}",
                encode(header.as_bytes()),
                encode(claims("a").to_string().as_bytes())
            );
            let mac = sign(&Key::new(HMAC_SHA256, &secret), message.as_bytes());
            let token = format!("{message}.{}", encode(mac.as_ref()));
            assert_eq!(fixture.reason(&token), reason);
        }
    }
}

#[test]
fn the_type_of_the_key_fits_the_algorithm() {
    let fixture =
        Fixture::with_settings(&[("auth.jwt_algorithms", "RS256,PS256,ES256,ES384,EdDSA")]);
    for (algorithm, key) in [
        ("RS256", "p256"),
        ("RS256", "ed"),
        ("ES256", "rsa"),
        ("ES256", "p384"),
        ("ES384", "p256"),
        ("EdDSA", "p256"),
        ("PS256", "ed"),
    ] {
        let header = json!({"alg": algorithm, "kid": key});
        for signer in [&fixture.p256, &fixture.p384, &fixture.ed, TestKey::rsa()] {
            let token = signer.token(&header, &claims("fleet"));
            assert_eq!(fixture.reason(&token), AuthFailureReason::Algorithm, "{algorithm} {key}");
        }
    }
    // Two paddings of one key.
    let header = json!({"alg": "PS256", "kid": "rsa"});
    let token = TestKey::rsa().token(&header, &claims("fleet"));
    let (message, _) = token.rsplit_once('.').unwrap();
    let pkcs1 = TestKey::rsa().token(&json!({"alg": "RS256", "kid": "rsa"}), &claims("fleet"));
    let swapped = format!("{message}.{}", pkcs1.rsplit_once('.').unwrap().1);
    assert_eq!(fixture.reason(&swapped), AuthFailureReason::BadSignature);
}

#[test]
fn an_unknown_or_ambiguous_key_is_refused() {
    let fixture = Fixture::new();
    for header in [
        json!({"alg": "EdDSA", "kid": "other"}),
        json!({"alg": "EdDSA", "kid": "ED"}),
        json!({"alg": "EdDSA", "kid": ""}),
    ] {
        let token = fixture.ed.token(&header, &claims("fleet"));
        assert_eq!(fixture.reason(&token), AuthFailureReason::UnknownKey, "{header}");
    }
    let unnamed = fixture.ed.token(&json!({"alg": "EdDSA"}), &claims("fleet"));
    assert!(fixture.verify(&unnamed).is_ok());
    let other = TestKey::ed25519();
    fixture.write_keys(&[fixture.ed.jwk("ed"), other.jwk("other")]);
    fixture.verifier.reload().unwrap();
    let unnamed = fixture.ed.token(&json!({"alg": "EdDSA"}), &claims("again"));
    assert_eq!(fixture.reason(&unnamed), AuthFailureReason::UnknownKey);
}

#[test]
fn different_keys_of_one_name_are_all_tried() {
    let fixture = Fixture::new();
    let other = TestKey::ed25519();
    fixture.write_keys(&[other.jwk("ed"), fixture.ed.jwk("ed")]);
    fixture.verifier.reload().unwrap();
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    for key in [&fixture.ed, &other] {
        assert!(fixture.verify(&key.token(&header, &claims("fleet"))).is_ok());
    }
    let stranger = TestKey::ed25519().token(&header, &claims("fleet"));
    assert_eq!(fixture.reason(&stranger), AuthFailureReason::BadSignature);
}

#[test]
fn issuer_and_audience_match_exactly() {
    use AuthFailureReason::{MalformedToken, WrongAudience, WrongIssuer};

    let fixture = Fixture::new();
    for (issuer, reason) in [
        (json!(ISSUER), None),
        (json!("https://issuer.example/"), Some(WrongIssuer)),
        (json!("https://ISSUER.example"), Some(WrongIssuer)),
        (json!(""), Some(WrongIssuer)),
        (json!(null), Some(WrongIssuer)),
        (json!([ISSUER]), Some(MalformedToken)),
        (json!(7), Some(MalformedToken)),
    ] {
        let verified = fixture.verify_claims(|claims| claims["iss"] = issuer.clone());
        assert_eq!(verified.err(), reason, "{issuer}");
    }
    for (audience, reason) in [
        (json!(AUDIENCE), None),
        (json!([AUDIENCE]), None),
        (json!(["other", AUDIENCE]), None),
        (json!("other"), Some(WrongAudience)),
        (json!(["other", "another"]), Some(WrongAudience)),
        (json!([]), Some(WrongAudience)),
        (json!(null), Some(WrongAudience)),
        (json!([AUDIENCE, 7]), Some(WrongAudience)),
        (json!({AUDIENCE: true}), Some(WrongAudience)),
        (json!(format!("{AUDIENCE} ")), Some(WrongAudience)),
    ] {
        let verified = fixture.verify_claims(|claims| claims["aud"] = audience.clone());
        assert_eq!(verified.err(), reason, "{audience}");
    }
    for (claim, reason) in [("iss", WrongIssuer), ("aud", WrongAudience)] {
        let verified = fixture.verify_claims(|claims| {
            claims.as_object_mut().unwrap().remove(claim);
        });
        assert_eq!(verified.err(), Some(reason));
    }
}

#[test]
fn a_token_is_valid_from_nbf_to_exp_with_leeway() {
    use AuthFailureReason::{Expired, NotYetValid};

    for (leeway, seconds) in [("0s", 0), ("30s", 30), ("5m", 300)] {
        let fixture = Fixture::with_settings(&[("auth.jwt_leeway", leeway)]);
        for (exp, reason) in [(1, None), (0, Some(Expired)), (-1, Some(Expired))] {
            let verified =
                fixture.verify_claims(|claims| claims["exp"] = json!(NOW - seconds + exp));
            assert_eq!(verified.err(), reason, "{leeway} {exp}");
        }
        for (nbf, reason) in [(-1, None), (0, None), (1, Some(NotYetValid))] {
            let verified = fixture.verify_claims(|claims| {
                claims["nbf"] = json!(NOW + seconds + nbf);
                claims["exp"] = json!(NOW + 1000);
            });
            assert_eq!(verified.err(), reason, "{leeway} {nbf}");
        }
    }
}

#[test]
fn the_clock_decides_and_not_the_time_of_the_machine() {
    let fixture = Fixture::new();
    let token = fixture.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet"));
    let identity = fixture.verify(&token).unwrap();
    fixture.clock.advance(89);
    assert_eq!(fixture.verify(&token).unwrap(), identity);
    assert_eq!(fixture.verifier.recheck(&identity), Ok(()));
    fixture.clock.advance(1);
    assert_eq!(fixture.reason(&token), AuthFailureReason::Expired);
    assert_eq!(fixture.verifier.recheck(&identity), Err(AuthFailureReason::Expired));
}

#[test]
fn times_are_numbers_in_range() {
    let fixture = Fixture::new();
    for (exp, is_valid) in [
        ("1700000060", true),
        ("1700000060.5", true),
        ("17000000.60e2", true),
        ("253402300799", true),
        ("253402300800", false),
        ("1e400", false),
        ("-1", false),
        ("\"1700000060\"", false),
        ("null", false),
        ("true", false),
        ("[1700000060]", false),
    ] {
        let text =
            format!(r#"{{"iss": "{ISSUER}", "aud": "{AUDIENCE}", "sub": "fleet", "exp": {exp}}}"#);
        let token = fixture.ed.token_of_texts(r#"{"alg":"EdDSA","kid":"ed"}"#, &text);
        let reason = fixture.verify(&token).err();
        assert_eq!(reason, (!is_valid).then_some(AuthFailureReason::MalformedToken), "{exp}");
    }
    let without = fixture.verify_claims(|claims| {
        claims.as_object_mut().unwrap().remove("exp");
    });
    assert_eq!(without.err(), Some(AuthFailureReason::MalformedToken));
    let nbf = fixture.verify_claims(|claims| claims["nbf"] = json!("soon"));
    assert_eq!(nbf.err(), Some(AuthFailureReason::MalformedToken));
}

#[test]
fn a_token_needs_a_usable_subject() {
    use AuthFailureReason::{MalformedToken, NoName};

    let fixture = Fixture::new();
    for (subject, reason) in [
        (json!("x".repeat(508)), None),
        (json!("x".repeat(509)), Some(NoName)),
        (json!(""), Some(NoName)),
        (json!("a\nb"), Some(NoName)),
        (json!(null), Some(NoName)),
        (json!(7), Some(MalformedToken)),
        (json!(["a"]), Some(MalformedToken)),
    ] {
        let verified = fixture.verify_claims(|claims| claims["sub"] = subject.clone());
        assert_eq!(verified.err(), reason, "{subject}");
    }
}

#[test]
fn a_malformed_token_is_refused() {
    let fixture = Fixture::new();
    let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let good = claims("fleet").to_string();
    let signed = |header: &str, claims: &str| fixture.ed.token_of_texts(header, claims);
    let with_claim = |claim: &str| signed(header, &good.replacen('{', &format!("{{{claim},"), 1));
    let whole = signed(header, &good);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        whole.replace('.', ""),
        format!("{whole}.x"),
        format!("{whole}="),
        format!(" {whole}"),
        format!("{whole}\u{e9}"),
        whole.replacen('.', "..", 1),
        whole.to_uppercase(),
        signed("", &good),
        signed("[]", &good),
        signed(r#"{"kid":"ed"}"#, &good),
        signed(r#"{"alg":7,"kid":"ed"}"#, &good),
        signed(r#"{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}"#, &good),
        signed(r#"{"alg":"EdDSA","kid":"ed","kid":"rsa"}"#, &good),
        signed(r#"{"alg":"EdDSA","kid":["ed"]}"#, &good),
        signed(r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#, &good),
        signed(r#"{"alg":"EdDSA","kid":"ed","crit":["b64"],"b64":false}"#, &good),
        signed(header, ""),
        signed(header, "[]"),
        signed(header, "7"),
        signed(header, good.trim_start_matches('{')),
        signed(header, &format!("{good} x")),
        // Repeated claims.
        with_claim(&format!(r#""exp":{}"#, NOW + 1000)),
        with_claim(r#""sub":"admin""#),
        with_claim(&format!(r#""iss":"{ISSUER}""#)),
        with_claim(r#""aud":"other""#),
        with_claim(r#""nbf":1,"nbf":2"#),
        with_claim(&format!(r#""aud":{}"#, nested(1000))),
        with_claim(&format!(r#""sub":{}"#, nested(1000))),
        signed(&format!(r#"{{"alg":"EdDSA","kid":"ed","x":{}}}"#, nested(1000)), &good),
    ] {
        assert_eq!(fixture.reason(&token), AuthFailureReason::MalformedToken, "{token}");
    }
    // A claim that the gateway does not read may have any value. It is skipped without recursion.
    for value in
        [r#"[[{"y":null}]]"#, &nested(2500), &(r#"{"a":"#.repeat(700) + "7" + &"}".repeat(700))]
    {
        assert!(fixture.verify(&with_claim(&format!(r#""x":{value}"#))).is_ok(), "{value}");
    }
}

#[test]
fn the_length_of_a_token_is_bounded() {
    let fixture = Fixture::new();
    let token = |padding: usize| {
        let mut claims = claims("fleet");
        claims["x"] = json!("x".repeat(padding));
        fixture.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims)
    };
    let longest = (5000..8000).map(token).take_while(|token| token.len() <= 8192).last().unwrap();
    assert!(longest.len() > 8188);
    assert!(fixture.verify(&longest).is_ok());
    for longer in [token(6100), token(1_000_000)] {
        assert!(longer.len() > 8192);
        assert_eq!(fixture.reason(&longer), AuthFailureReason::MalformedToken);
    }
}

#[tokio::test]
async fn tokens_of_a_removed_key_are_refused_at_once_and_streams_are_notified() {
    let fixture = Fixture::new();
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    let token = fixture.ed.token(&header, &claims("fleet"));
    let identity = fixture.verify(&token).unwrap();
    let mut changes = fixture.verifier.subscribe();

    // The same keys in other words are no change.
    let others = [TestKey::rsa().jwk("rsa"), fixture.p256.jwk("p256"), fixture.p384.jwk("p384")];
    let mut again = others.to_vec();
    again.push(fixture.ed.jwk("ed"));
    again[3]["x5t"] = json!("x");
    fixture.write_keys(&again);
    fixture.verifier.reload().unwrap();
    assert!(changes.changed().now_or_never().is_none());
    assert_eq!(fixture.verify(&token).unwrap(), identity);

    // Another key takes the name.
    let successor = TestKey::ed25519();
    let mut rotated = others.to_vec();
    rotated.push(successor.jwk("ed"));
    fixture.write_keys(&rotated);
    fixture.verifier.reload().unwrap();
    changes.changed().await;
    assert_eq!(fixture.verifier.recheck(&identity), Err(AuthFailureReason::UnknownKey));
    assert_eq!(fixture.reason(&token), AuthFailureReason::UnknownKey);
    assert!(fixture.verify(&successor.token(&header, &claims("fleet"))).is_ok());

    // The issuer revokes all keys.
    fixture.write_keys(&[]);
    fixture.verifier.reload().unwrap();
    let token = successor.token(&header, &claims("other"));
    assert_eq!(fixture.reason(&token), AuthFailureReason::UnknownKey);
}

#[test]
fn a_bad_key_file_keeps_the_last_keys_and_stops_the_start() {
    let fixture = Fixture::new();
    let token = fixture.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet"));
    let path = fixture.directory.path().join("keys.json");
    for text in ["", "{}", &" ".repeat(MAX_SET_BYTES + 1)] {
        fs::write(&path, text).unwrap();
        let error = fixture.verifier.reload().unwrap_err().to_string();
        assert!(error.starts_with("cannot read the key set /"), "{error}");
        assert!(fixture.verify(&token).is_ok());
    }
    fs::remove_file(&path).unwrap();
    assert!(fixture.verifier.reload().is_err());
    assert!(fixture.verify(&token).is_ok());
    let rules = TokenRules::new(&auth_config(&[]));
    assert!(TokenVerifier::with_key_file(rules, path, fixture.clock.clone()).is_err());
}

#[tokio::test]
async fn removed_keys_leave_the_cache() {
    let fixture = Fixture::new();
    let token = fixture.ed.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims("fleet"));
    let hash = TokenHash::of(&token);
    fixture.verify(&token).unwrap();
    let emptied = async {
        tokio::task::yield_now().await;
        fixture.write_keys(&[]);
        fixture.verifier.reload().unwrap();
        while fixture.verifier.cache.get(hash).is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = fixture.verifier.run() => unreachable!("it runs for ever"),
        () = emptied => {}
    }
}

#[test]
fn the_leeway_is_part_of_the_end_of_an_identity() {
    let fixture = Fixture::with_settings(&[("auth.jwt_leeway", "2m")]);
    let identity = fixture.verify_claims(|_| {}).unwrap();
    let end = Timestamp::from_micros((NOW + 60) * 1_000_000).plus(Duration::from_secs(120));
    assert_eq!(identity.expires_at(), Some(end));
}
