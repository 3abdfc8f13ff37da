use secrecy::ExposeSecret as _;

use super::*;

fn redacted(body: &str) -> (String, Option<String>, Option<String>) {
    let redacted = redact_text(body.as_bytes());
    let expose = |secret: SecretString| secret.expose_secret().to_owned();
    let body = String::from_utf8(redacted.body).unwrap();
    (body, redacted.username.map(expose), redacted.password.map(expose))
}

#[test]
fn credentials_are_redacted_wherever_a_body_is_truncated() {
    let whole = r#"{"Username":"us\"er","x":{"PASSWORD" : "pw,}x"},"requestId":"r","#;
    for cut in 0..whole.len() {
        let (body, ..) = redacted(whole.split_at(cut).0);
        for secret in ["us\\", "er\"", "pw", "}x"] {
            assert!(!body.contains(secret), "{body}");
        }
    }
    let (body, username, password) = redacted(whole);
    assert_eq!(body, r#"{"Username":"***","x":{"PASSWORD" : "***"},"requestId":"r","#);
    assert_eq!(username.as_deref(), Some("us\\\"er"));
    assert_eq!(password.as_deref(), Some("pw,}x"));
}

#[test]
fn unquoted_and_repeated_credentials_are_redacted_too() {
    for body in [
        "password=hush",
        "{password: hush, a: 1}",
        r#"{"password":hush}"#,
        r#"[{"password":"hush"},{"password":"hush"}"#,
        "{\"password\":\n\t\"hush\"",
        r#"{\"password\":\"hush\"}"#,
        r#"{"pass\u0077or\u0044":"hush""#,
        r#"{"password":["a","hush"]"#,
        r#"{"password":{"a":1,"b":"hush"}"#,
        r#"{"password":!["a","hush"]"#,
        "{'password': 'a,hush'",
    ] {
        assert!(!redacted(body).0.contains("hush"), "{body}");
    }
    assert_eq!(redacted("no credentials").0, "no credentials");
    assert_eq!(redact_text(b"\xff\xfe").body, b"\xff\xfe");
}
