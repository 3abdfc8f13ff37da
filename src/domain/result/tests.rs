use super::*;

#[test]
fn an_effective_date_is_parsed_if_possible_and_always_kept_as_text() {
    for (text, date) in [
        ("5/31/2018 12:00:00 AM", "2018-05-31"),
        ("12/01/2026", "2026-12-01"),
        ("2026-02-28T00:00:00Z", "2026-02-28"),
        ("2/29/2024 1:00:00 PM", "2024-02-29"),
        ("2/29/2023 1:00:00 PM", ""),
        ("31/5/2018", ""),
        ("soon", ""),
        ("", ""),
        ("1/1/1/1", ""),
    ] {
        let change = PlanChangeDetails::parse(text);
        assert_eq!(
            (change.effective_date.as_str(), change.effective_date_text.as_str()),
            (date, text)
        );
    }
}

#[test]
fn a_callback_outranks_a_lookup_and_a_success_outranks_a_failure() {
    let precedence = |source, outcome| ResultPrecedence { source, outcome };
    assert!(
        precedence(ResultSource::Callback, Outcome::Failed)
            > precedence(ResultSource::Operator, Outcome::Succeeded)
    );
    assert!(
        precedence(ResultSource::Operator, Outcome::Failed)
            > precedence(ResultSource::Reconciled, Outcome::Succeeded)
    );
    assert!(
        precedence(ResultSource::Callback, Outcome::Succeeded)
            > precedence(ResultSource::Callback, Outcome::Failed)
    );
}
