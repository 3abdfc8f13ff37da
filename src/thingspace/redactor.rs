//! Takes what must not be shown out of texts that came from outside.

use std::collections::{HashMap, HashSet};

use crate::domain::refusal::Refusal;

/// Texts that must not be shown.
pub(super) struct Redactor {
    /// Folded, by their first character; found anywhere.
    hidden: HashMap<char, HashSet<Vec<char>>>,
    /// Folded; found only as whole words.
    words: HashSet<Vec<char>>,
}

/// Shorter texts are found in any sentence by chance.
const MIN_LENGTH: usize = 3;
/// A single character names nobody.
const MIN_WORD: usize = 2;
/// How much of ThingSpace's text is kept, in characters.
const MAX_TEXT: usize = 500;
/// How much of ThingSpace's code is kept, in characters.
const MAX_CODE: usize = 128;
/// How much of a text is looked at. What is kept of it may get shorter by
/// blanking, but 500 characters of it are enough for people in any case.
const MAX_INPUT: usize = 2_000;
const PLACEHOLDER: &str = "[redacted]";

// === impl Blanks ===

impl Redactor {
    /// Hides these texts, whatever their case.
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut hidden: HashMap<char, HashSet<Vec<char>>> = HashMap::new();
        for text in texts {
            let folded: Vec<char> = text.trim().chars().map(fold).collect();
            if let (Some(first), true) = (folded.first(), folded.len() >= MIN_LENGTH) {
                hidden.entry(*first).or_default().insert(folded);
            }
        }
        Self {
            hidden,
            words: HashSet::new(),
        }
    }

    /// Hides each word of these texts too, where it stands as a word: parts of
    /// an address, and names that are short.
    pub(super) fn with_words<'a>(mut self, texts: impl Iterator<Item = &'a str>) -> Self {
        let words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        let words = words.map(|word| word.chars().map(fold).collect::<Vec<char>>());
        self.words
            .extend(words.filter(|word| word.len() >= MIN_WORD));
        self
    }

    /// Blanks and shortens what ThingSpace said.
    pub(super) fn redact(&self, refusal: &mut Refusal) {
        let tidied = |said: Option<String>, max: usize| {
            said.map(|said| self.redact_text(&said, max))
                .filter(|said| !said.is_empty())
        };
        refusal.thingspace_code = tidied(refusal.thingspace_code.take(), MAX_CODE);
        refusal.thingspace_text = tidied(refusal.thingspace_text.take(), MAX_TEXT);
    }

    /// At most `max` characters of a text, control characters replaced by
    /// spaces and hidden texts by `[redacted]`.
    pub(super) fn redact_text(&self, text: &str, max: usize) -> String {
        let text = text.trim();
        let folded: Vec<char> = text.chars().map(fold).collect();
        let mut out = String::new();
        let mut hidden_until = 0;
        for (at, c) in text.chars().enumerate().take(MAX_INPUT) {
            let was_hidden = at < hidden_until;
            // Looked for at each place, also within what is hidden already: two
            // hidden texts may overlap.
            let rest = folded.get(at..).unwrap_or_default();
            hidden_until = hidden_until.max(at + self.longest(rest));
            let before = at.checked_sub(1).and_then(|before| folded.get(before));
            if !before.is_some_and(|c| c.is_alphanumeric()) {
                hidden_until = hidden_until.max(at + self.word(rest));
            }
            match (was_hidden, at < hidden_until) {
                (false, true) => out.push_str(PLACEHOLDER),
                (false, false) => out.push(if c.is_control() { ' ' } else { c }),
                (true, _) => {}
            }
        }
        out.chars().take(max).collect()
    }

    /// The length of the hidden word that this begins with, at its beginning.
    fn word(&self, text: &[char]) -> usize {
        let end = text.iter().position(|c| !c.is_alphanumeric());
        let word = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
        if self.words.contains(word) {
            word.len()
        } else {
            0
        }
    }

    /// The length of the longest hidden text that this begins with.
    fn longest(&self, text: &[char]) -> usize {
        text.first()
            .and_then(|first| self.hidden.get(first))
            .into_iter()
            .flatten()
            .filter(|hidden| text.starts_with(hidden))
            .map(Vec::len)
            .max()
            .unwrap_or(0)
    }
}

/// One character for one character, whatever its case.
fn fold(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensitive_texts_are_redacted_in_any_case_and_where_they_overlap() {
        let blanks = Redactor::new(["1 Main St", "st dallas", "Zoë", "Al"].into_iter());
        for (text, shown) in [
            ("no such street: 1 MAIN ST!", "no such street: [redacted]!"),
            ("1 main st Dallas 75001", "[redacted] 75001"),
            ("ZOË and Al\nagain", "[redacted] and Al again"),
            ("  ", ""),
        ] {
            assert_eq!(blanks.redact_text(text, 500), shown);
        }
    }

    #[test]
    fn words_of_a_name_or_address_are_redacted_as_whole_words() {
        let texts = || ["75201", "1234", "1 Main St", "Wu", "III"].into_iter();
        let blanks = Redactor::new(texts()).with_words(texts());
        let said = "Zip 75201-1234 unknown; Mr wu, III at MAIN ST, Stub 1";
        let shown = "Zip [redacted]-[redacted] unknown; Mr [redacted], [redacted] at \
             [redacted] [redacted], Stub 1";
        assert_eq!(blanks.redact_text(said, 500), shown);
    }

    #[test]
    fn a_text_is_redacted_before_it_is_truncated() {
        let blanks = Redactor::new(std::iter::once("Lovelace"));
        let text = format!("{}Lovelace", "x".repeat(496));
        assert_eq!(
            blanks.redact_text(&text, 500),
            format!("{}[red", "x".repeat(496))
        );
        let long = format!("{}Lovelace", "é".repeat(MAX_INPUT - 2));
        assert!(!blanks.redact_text(&long, MAX_INPUT).contains("Lo"));
    }
}
