//! Takes user name and password out of a body that cannot be read as JSON.
//!
//! What cannot be read may be cut or broken anywhere, so this goes by what credentials look like,
//! and rather blanks too much than too little.

/// What a broken body has in place of a credential.
const REDACTED: &[u8] = b"***";

/// A body without credentials, and those that it had: the first of each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Redaction {
    pub(super) body: Vec<u8>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// Blanks the value of every member that is named like a credential, in any case, to its end or
/// else to the body's.
pub(super) fn redact(body: &[u8]) -> Redaction {
    let mut redaction = Redaction::default();
    let mut at = 0;
    while let Some((name, name_end)) = find_credential_name(body, at) {
        let value = skip(body, name_end, is_between);
        let (content, end) = find_value(body, value);
        push(&mut redaction.body, body.get(at..content.0));
        redaction.body.extend_from_slice(REDACTED);
        let text = body.get(content.0..content.1).unwrap_or_default();
        let text = String::from_utf8_lossy(text).into_owned();
        let slot = match name {
            CredentialField::Username => &mut redaction.username,
            CredentialField::Password => &mut redaction.password,
        };
        if slot.is_none() && !text.is_empty() {
            *slot = Some(text);
        }
        at = end.max(name_end);
    }
    push(&mut redaction.body, body.get(at..));
    redaction
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CredentialField {
    Username,
    Password,
}

/// The next place that names a credential, and where the name ends.
fn find_credential_name(body: &[u8], from: usize) -> Option<(CredentialField, usize)> {
    let names = [
        (CredentialField::Username, &b"username"[..]),
        (CredentialField::Password, b"password"),
    ];
    (from..body.len()).find_map(|at| {
        names
            .iter()
            .find_map(|(name, text)| Some((*name, match_name(body, at, text)?)))
    })
}

/// Where this name ends, if it stands here in any case; JSON may spell any letter as its number.
fn match_name(body: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    name.iter().try_fold(at, |at, letter| {
        let rest = body.get(at..)?;
        let (found, length) = match rest.strip_prefix(b"\\u") {
            Some(number) => {
                let number = std::str::from_utf8(number.get(..4)?).ok()?;
                (u8::from_str_radix(number, 16).ok()?, 6)
            }
            None => (*rest.first()?, 1),
        };
        found.eq_ignore_ascii_case(letter).then_some(at + length)
    })
}

/// Quotes, colons, white space and escapes between a name and its value.
fn is_between(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b':' | b'=' | b'\\') || byte.is_ascii_whitespace()
}

/// The content of the value at a place, and where it ends: at its quote, or at what ends a bare one.
fn find_value(body: &[u8], at: usize) -> ((usize, usize), usize) {
    let before = at.checked_sub(1).and_then(|before| body.get(before));
    let quote = before.filter(|byte| matches!(byte, b'"' | b'\''));
    let mut end = at;
    while let Some(byte) = body.get(end) {
        match byte {
            // What is escaped does not end it.
            b'\\' => end += 1,
            byte if quote == Some(byte) => break,
            b',' | b'}' | b']' | b'\n' | b'\r' if quote.is_none() => break,
            // No bare word, but something with parts: where it ends, nobody can tell.
            b'"' | b'\'' | b'{' | b'[' if quote.is_none() => end = body.len(),
            _ => {}
        }
        end += 1;
    }
    let end = end.min(body.len());
    ((at, end), end)
}

fn skip(body: &[u8], from: usize, predicate: impl Fn(u8) -> bool) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| predicate(**byte)).count()
}

fn push(to: &mut Vec<u8>, part: Option<&[u8]>) {
    to.extend_from_slice(part.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(body: &str) -> (String, Option<String>, Option<String>) {
        let scrubbed = redact(body.as_bytes());
        let body = String::from_utf8(scrubbed.body).unwrap();
        (body, scrubbed.username, scrubbed.password)
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
        assert_eq!(
            body,
            r#"{"Username":"***","x":{"PASSWORD" : "***"},"requestId":"r","#
        );
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
        assert_eq!(redact(b"\xff\xfe").body, b"\xff\xfe");
    }
}
