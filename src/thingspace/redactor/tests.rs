use super::*;

#[test]
fn sensitive_texts_are_redacted_in_any_case_and_where_they_overlap() {
    let redactor = Redactor::new(["1 Main St", "st dallas", "Zoë", "Al"], &[]);
    for (text, shown) in [
        ("no such street: 1 MAIN ST!", "no such street: [redacted]!"),
        ("1 main st Dallas 75001", "[redacted] 75001"),
        ("ZOË and Al\nagain", "[redacted] and Al again"),
        ("  ", ""),
    ] {
        assert_eq!(redactor.redact_text(text, 500), shown);
    }
}

#[test]
fn words_of_a_name_or_address_are_redacted_as_whole_words() {
    let redactor = Redactor::new([], &["75201", "1234", "1 Main St", "Wu", "III"]);
    let text = "Zip 75201-1234 unknown; Mr wu, III at MAIN ST, Stub 1";
    let shown = "Zip [redacted]-[redacted] unknown; Mr [redacted], [redacted] at \
         [redacted] [redacted], Stub 1";
    assert_eq!(redactor.redact_text(text, 500), shown);
}

#[test]
fn a_text_is_redacted_before_it_is_truncated() {
    let redactor = Redactor::new(["Lovelace"], &[]);
    let text = format!("{}Lovelace", "x".repeat(496));
    assert_eq!(redactor.redact_text(&text, 500), format!("{}[red", "x".repeat(496)));
    let long = format!("{}Lovelace", "é".repeat(MAX_INPUT_LENGTH - 2));
    assert!(!redactor.redact_text(&long, MAX_INPUT_LENGTH).contains("Lo"));
}
