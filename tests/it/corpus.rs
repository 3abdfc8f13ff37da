//! Runs the checks of the fuzz targets on the kept inputs (`scripts/fuzz`).

use checks::grpc_request::METHODS;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&corpus).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let data = fs::read(&path).expect("readable");
        let checked = catch_unwind(AssertUnwindSafe(|| check(&data)));
        assert!(checked.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 4, "{target} has {count}");
}

#[test]
fn callbacks_are_redacted_and_have_one_digest() {
    replay("callback", checks::callback::check);
}

#[test]
fn no_text_is_accepted_as_another_resume_token() {
    replay("token", checks::token::check);
}

#[test]
fn responses_are_classified_as_documented() {
    replay("error_body", checks::error_body::check);
}

#[test]
fn errors_of_settings_files_contain_no_secrets() {
    replay("settings", checks::settings::check);
}

#[test]
fn a_policy_grants_only_what_its_file_says() {
    replay("policy", checks::policy::check);
}

#[test]
fn an_accepted_bearer_token_fulfils_all_rules() {
    replay("jwt", checks::jwt::check);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/jwt");
    for (name, is_accepted) in [("claims", true), ("audiences", true), ("expired", false)] {
        let seed = fs::read_to_string(corpus.join(name)).expect("readable");
        let claims = seed.strip_prefix('c').expect("the kind of the seed");
        assert_eq!(checks::jwt::accepts(claims), is_accepted, "{name}");
    }
}

#[test]
fn a_forwarded_client_certificate_names_only_the_nearest_client() {
    replay("forwarded_client_cert", checks::forwarded_client_cert::check);
}

#[test]
fn a_call_in_json_is_its_message_or_its_error_has_no_value() {
    replay("json_request", checks::json_request::check);
    // Each method has a text that is accepted, with all of its fields.
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/json_request");
    for method in METHODS {
        let (_, name) = method.split_once('/').expect("a service and a method");
        let text = fs::read(corpus.join(format!("{name}-valid"))).expect("a text");
        assert_eq!(METHODS[usize::from(text[0])], method);
        let encoded = checks::json_request::result(method, &text[1..]).expect(method);
        assert_eq!(encoded.is_empty(), &text[1..] == b"{}", "{method}");
    }
}

#[test]
fn every_grpc_message_is_valid_or_its_error_names_the_invalid_fields() {
    assert!(checks::grpc_request::served_methods().iter().all(|it| METHODS.contains(&&**it)));
    assert_eq!(checks::grpc_request::served_methods().len(), METHODS.len());
    replay("grpc_request", checks::grpc_request::check);
    // Each method has a valid message, and each with fields an invalid one: the checks reach both results.
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/grpc_request");
    for method in METHODS {
        let (_, name) = method.split_once('/').expect("a service and a method");
        let message = |kind: &str| fs::read(corpus.join(format!("{name}-{kind}"))).ok();
        let valid = message("valid").expect("a valid message");
        assert_eq!(METHODS[usize::from(valid[0])], method);
        assert_eq!(checks::grpc_request::result(method, &valid[1..]), Ok(()), "{method}");
        if let Some(invalid) = message("invalid") {
            checks::grpc_request::result(method, &invalid[1..]).expect_err(method);
        }
    }
}
