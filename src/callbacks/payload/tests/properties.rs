//! Compares the parser with a simple one on any JSON, and checks the digest and the stored text.

use proptest::{collection::vec, prelude::*, sample::select};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::reference;
use crate::callbacks::payload::{self, parse};

/// The value of every credential.
const SECRET: &str = "planted";

/// A JSON value in which names can be repeated, and numbers have their text.
#[derive(Debug, Clone, PartialEq)]
enum Json {
    Literal(&'static str),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Choices that do not change the content: white space, escapes, order.
#[derive(Debug, Clone)]
struct Style {
    choices: Vec<u8>,
    next: usize,
}

impl Style {
    fn choose(&mut self, options: usize) -> usize {
        self.next += 1;
        usize::from(self.choices[self.next % self.choices.len()]) % options
    }

    fn space(&mut self) -> &'static str {
        ["", "", "", "", " ", "\n  ", "\t", "\r\n"][self.choose(8)]
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.choose(last + 1));
        }
    }
}

fn style() -> impl Strategy<Value = Style> {
    vec(any::<u8>(), 1..40).prop_map(|choices| Style { choices, next: 0 })
}

fn write(json: &Json, style: &mut Style) -> String {
    let list = |open: &str, close: &str, parts: Vec<String>, style: &mut Style| {
        let parts: Vec<String> = parts
            .into_iter()
            .map(|part| format!("{}{part}{}", style.space(), style.space()))
            .collect();
        let space = if parts.is_empty() { style.space() } else { "" };
        format!("{open}{space}{}{close}", parts.join(","))
    };
    match json {
        Json::Literal(text) => (*text).to_owned(),
        Json::Text(text) => write_text(text, style),
        Json::Array(values) => {
            let parts = values.iter().map(|value| write(value, style)).collect();
            list("[", "]", parts, style)
        }
        Json::Object(members) => {
            let parts = members.iter().map(|(name, value)| {
                let name = write_text(name, style);
                let (before, after) = (style.space(), style.space());
                format!("{name}{before}:{after}{}", write(value, style))
            });
            let parts = parts.collect();
            list("{", "}", parts, style)
        }
    }
}

fn write_text(text: &str, style: &mut Style) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let must_be_escaped = c < ' ' || c == '"' || c == '\\';
        if must_be_escaped || style.choose(9) == 0 {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out + "\""
}

/// Names that the parser knows, and others.
fn name() -> impl Strategy<Value = String> {
    let known = select(vec![
        "deviceIds",
        "DEVICEIDS",
        "deviceResponse",
        "deviceProfileResponse",
        "deviceIdentifierCollection",
        "changeServicePlanResponse",
        "effectiveDate",
        "faultResponse",
        "faultcode",
        "faultstring",
        "status",
        "Status",
        "state",
        "profileStatus",
        "profileRole",
        "callbackCount",
        "CallbackCount",
        "maxCallbackThreshold",
        "requestId",
        "RequestID",
        "id",
        "kind",
        "Kind",
        "username",
        "userName",
        "PASSWORD",
        "password",
        "passwords",
        "}",
        "]",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => "[a-z\\PC\"\\\\]{0,9}"]
}

fn scalar() -> impl Strategy<Value = Json> {
    let literals = select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "1.0",
        "17",
        "5555551234",
        "1e+5",
        "-2.50e-3",
    ]);
    let texts = select(vec![
        "",
        "1",
        " 2 ",
        "r",
        "mdn",
        "MDN",
        "Iccid",
        "\u{212A}ind",
        "5/31/2018 12:00:00 AM",
        "success",
        "Failed",
        "pending",
        "S.REQUEST_ONHOLD.x",
        "\u{0}\u{7f}\u{1F600}",
    ]);
    prop_oneof![
        literals.prop_map(Json::Literal),
        texts.prop_map(|text| Json::Text(text.to_owned())),
        "[ -~]{0,12}".prop_map(Json::Text),
        Just(Json::Text("é".repeat(1_001))),
    ]
}

fn identifier() -> impl Strategy<Value = Json> {
    let text = || {
        let texts = select(vec!["mdn", "MDN", "meid", "1", "2", "\u{212A}"]);
        texts.prop_map(|text| Json::Text(text.to_owned()))
    };
    (text(), text(), any::<bool>()).prop_map(|(kind, id, id_first)| {
        let mut members = vec![("kind".to_owned(), kind), ("id".to_owned(), id)];
        members.rotate_left(usize::from(id_first));
        Json::Object(members)
    })
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![3 => scalar(), 1 => identifier(), 1 => vec(identifier(), 0..4).prop_map(Json::Array)];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::Array),
            vec((name(), inner), 0..5).prop_map(Json::Object),
        ]
    })
}

/// An object, usually with a request id, whose credentials have the value [`SECRET`].
fn callback() -> impl Strategy<Value = Json> {
    let id = prop_oneof![
        1 => Just(None),
        9 => "[a-z0-9]{1,9}".prop_map(|id| Some(("requestId".to_owned(), Json::Text(id)))),
    ];
    (id, vec((name(), json()), 0..7)).prop_map(|(id, mut members)| {
        members.extend(id);
        let mut object = Json::Object(members);
        plant(&mut object);
        object
    })
}

fn is_credential(name: &str) -> bool {
    name.eq_ignore_ascii_case("username") || name.eq_ignore_ascii_case("password")
}

/// Replaces texts in credentials with [`SECRET`].
fn plant(json: &mut Json) {
    fn fill(json: &mut Json) {
        match json {
            Json::Literal(_) => {}
            Json::Text(text) => SECRET.clone_into(text),
            Json::Array(values) => values.iter_mut().for_each(fill),
            Json::Object(members) => members.iter_mut().for_each(|(_, value)| fill(value)),
        }
    }
    match json {
        Json::Literal(_) | Json::Text(_) => {}
        Json::Array(values) => values.iter_mut().for_each(plant),
        Json::Object(members) => {
            for (name, value) in members {
                if is_credential(name) { fill(value) } else { plant(value) }
            }
        }
    }
}

/// Removes repeated names at every level.
fn without_repeated_names(json: Json) -> Json {
    match json {
        Json::Array(values) => {
            Json::Array(values.into_iter().map(without_repeated_names).collect())
        }
        Json::Object(members) => {
            let mut unique: Vec<(String, Json)> = Vec::new();
            for (name, value) in members {
                if unique.iter().all(|(other, _)| *other != name) {
                    unique.push((name, without_repeated_names(value)));
                }
            }
            Json::Object(unique)
        }
        other => other,
    }
}

fn is_identifier(json: &Json) -> bool {
    let Json::Object(members) = json else { return false };
    let has = |wanted: &str| members.iter().any(|(name, _)| name == wanted);
    let others = members.iter().filter(|(name, _)| !is_credential(name));
    others.count() == 2 && has("id") && has("kind")
}

/// Rewrites a value without changing its content.
fn rewrite(json: &Json, style: &mut Style) -> Json {
    match json {
        Json::Array(values) => {
            let mut rewritten: Vec<Json> =
                values.iter().map(|value| rewrite(value, style)).collect();
            if !values.is_empty() && values.iter().all(is_identifier) {
                let again = &values[style.choose(values.len())];
                rewritten.push(rewrite(again, style));
                style.shuffle(&mut rewritten);
            }
            Json::Array(rewritten)
        }
        Json::Object(members) => {
            let in_identifier = is_identifier(json);
            let mut rewritten: Vec<(String, Json)> = Vec::new();
            for (name, value) in members {
                let value = match value {
                    Json::Text(kind) if in_identifier && name == "kind" => {
                        Json::Text(match style.choose(2) {
                            0 => kind.to_lowercase(),
                            _ => kind.clone(),
                        })
                    }
                    value => rewrite(value, style),
                };
                rewritten.push((name.clone(), value));
            }
            rewritten.retain(|(name, _)| !is_credential(name));
            if style.choose(2) == 0 {
                rewritten.push(("passWord".into(), Json::Text(SECRET.into())));
            }
            style.shuffle(&mut rewritten);
            Json::Object(rewritten)
        }
        other => other.clone(),
    }
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(|secret| secret.expose_secret())
}

fn check_against_reference(body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    let (parsed, expected) = (parse(body), reference::parse(body));
    assert_eq!(parsed.is_some(), expected.is_some(), "{text}");
    let (Some(parsed), Some(expected)) = (parsed, expected) else { return };
    assert_eq!(parsed.result, expected.result, "{text}");
    assert_eq!(exposed(parsed.username.as_ref()), exposed(expected.username.as_ref()), "{text}");
    assert_eq!(exposed(parsed.password.as_ref()), exposed(expected.password.as_ref()), "{text}");
    let stored: Value = serde_json::from_str(&parsed.raw_json).unwrap();
    assert_eq!(stored, expected.body, "{text}");
    let redacted = payload::redact(body);
    assert_eq!(redacted.body, parsed.raw_json.as_bytes(), "{text}");
    assert_eq!(exposed(redacted.password.as_ref()), exposed(expected.password.as_ref()), "{text}");
}

proptest! {
    #[test]
    fn any_body_is_read_as_the_reference_reads_it(
        json in callback(),
        mut style in style(),
        lacks_brace in any::<bool>(),
        has_mark in any::<bool>(),
    ) {
        let mut body = format!("{}{}{}", style.space(), write(&json, &mut style), style.space());
        if lacks_brace {
            body = body.replacen('{', "", 1);
        }
        if has_mark {
            body.insert(0, '\u{FEFF}');
        }
        check_against_reference(body.as_bytes());
    }

    #[test]
    fn a_broken_body_is_refused_where_the_reference_refuses_it(
        json in callback(),
        mut style in style(),
        at in any::<prop::sample::Index>(),
        byte in select(b"{}[],:\"\\-.0u \x01\xFF".to_vec()),
        how in 0..3,
    ) {
        let mut body = write(&json, &mut style).into_bytes();
        let at = at.index(body.len());
        match how {
            0 => body.insert(at, byte),
            1 => body[at] = byte,
            _ => body.truncate(at),
        }
        check_against_reference(&body);
    }

    #[test]
    fn the_digest_is_the_same_after_a_rewrite_without_another_content(
        json in callback(),
        mut style in style(),
    ) {
        let json = without_repeated_names(json);
        let first = parse(write(&json, &mut style).as_bytes());
        let Json::Object(mut members) = rewrite(&json, &mut style) else { unreachable!() };
        let is_count = |name: &str| name.to_ascii_lowercase().contains("callback");
        members.retain(|(name, _)| !is_count(name));
        members.push(("CALLBACKCOUNT".into(), Json::Literal("17")));
        let rewritten = write(&Json::Object(members), &mut style);
        let second = parse(rewritten.as_bytes());
        prop_assert_eq!(
            first.map(|callback| callback.digest),
            second.map(|callback| callback.digest),
            "{}",
            rewritten
        );
    }

    #[test]
    fn two_contents_have_the_same_digest_only_if_the_reference_sees_no_difference(
        json in callback(),
        other in json(),
        name in name(),
        at in any::<prop::sample::Index>(),
        mut style in style(),
    ) {
        let Json::Object(mut members) = json.clone() else { unreachable!() };
        let index = at.index(members.len() + 1);
        match members.get_mut(index) {
            Some((_, value)) => *value = other,
            None => members.push((name, other)),
        }
        let bodies = [write(&json, &mut style), write(&Json::Object(members), &mut style)];
        let [Some(first), Some(second)] = bodies.each_ref().map(|body| parse(body.as_bytes()))
        else {
            return Ok(());
        };
        let content = |body: &String| reference::parse(body.as_bytes()).unwrap().content;
        let is_same = content(&bodies[0]) == content(&bodies[1]);
        prop_assert_eq!(first.digest == second.digest, is_same, "{:?}", bodies);
    }

    #[test]
    fn the_stored_text_never_has_a_credential(json in callback(), mut style in style()) {
        let body = write(&json, &mut style);
        let Some(callback) = parse(body.as_bytes()) else { return Ok(()) };
        prop_assert!(!format!("{callback:?}").contains(SECRET), "{}", body);
        let redacted = payload::redact(body.as_bytes());
        prop_assert!(!String::from_utf8(redacted.body).unwrap().contains(SECRET), "{}", body);
        // A replay from the stored text is the same callback.
        let stored = parse(callback.raw_json.as_bytes()).unwrap();
        prop_assert_eq!(stored.result, callback.result);
        prop_assert_eq!(stored.digest, callback.digest);
        prop_assert_eq!(&stored.raw_json, &callback.raw_json);
    }
}

#[test]
fn a_number_is_valid_as_in_the_reference_and_keeps_its_text() {
    // `serde_json` writes a plus sign in an exponent, so the texts are not compared.
    for number in [
        "0", "-0", "10", "1.5", "1e5", "1E5", "1e+5", "1E-5", "1.0e05", "-", "+1", "01", "-01",
        "1.", ".5", "1e", "1e+", "1.e5", "0x1", "1_0", "--1", "1e5.0", "NaN", "1 2",
    ] {
        let body = format!("{{\"requestId\":\"r\",\"status\":{number}}}");
        let expected = reference::parse(body.as_bytes()).map(|_| number.to_owned());
        assert_eq!(parse(body.as_bytes()).map(|callback| callback.result.status_text), expected);
    }
}

#[test]
fn nesting_is_limited_as_in_the_reference() {
    for depth in 120..135 {
        let body =
            format!("{{\"requestId\":\"r\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        check_against_reference(body.as_bytes());
    }
}
