//! Runs the checks of the fuzz targets on the kept inputs (`scripts/fuzz`).

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
