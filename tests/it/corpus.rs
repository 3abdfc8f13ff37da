//! What fuzzing has found worth keeping (`scripts/fuzz`), through the same checks on every run of the tests.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
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
fn no_callback_tells_its_password_or_has_two_names() {
    replay("callback", checks::callback::check);
}

#[test]
fn no_text_is_taken_for_another_resume_token() {
    replay("token", checks::token::check);
}

#[test]
fn no_answer_makes_certain_what_the_table_does_not() {
    replay("error_body", checks::error_body::check);
}

#[test]
fn no_settings_file_is_answered_with_its_secrets() {
    replay("settings", checks::settings::check);
}
