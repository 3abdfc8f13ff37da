//! Removes secrets, names and addresses from texts that ThingSpace sent.

use std::collections::{HashMap, HashSet};

use crate::domain::refusal::Refusal;

/// Minimum length of a hidden text. Shorter ones occur in any sentence by chance.
const MIN_TEXT_LENGTH: usize = 3;
/// Minimum length of a hidden word. A single character identifies no person.
const MIN_WORD_LENGTH: usize = 2;
/// Maximum length of an error text, in characters.
const MAX_TEXT_LENGTH: usize = 500;
/// Maximum length of an error code, in characters.
const MAX_CODE_LENGTH: usize = 128;
/// Number of characters of a text that are read. Redaction shortens a text, so this exceeds the maximum
/// length.
const MAX_INPUT_LENGTH: usize = 2_000;
const PLACEHOLDER: &str = "[redacted]";

/// Replaces hidden texts by `[redacted]`, in any case.
pub(super) struct Redactor {
    /// Case-folded texts by their first character. They match anywhere.
    texts: HashMap<char, HashSet<Vec<char>>>,
    /// Case-folded words. They match only as whole words.
    words: HashSet<Vec<char>>,
}

impl Redactor {
    /// Hides texts of 3 characters or more. Of names and addresses, also hides each word.
    pub(super) fn new<'a>(
        secrets: impl IntoIterator<Item = &'a str>,
        names_and_addresses: &[&'a str],
    ) -> Self {
        let mut texts: HashMap<char, HashSet<Vec<char>>> = HashMap::new();
        for text in secrets.into_iter().chain(names_and_addresses.iter().copied()) {
            let folded: Vec<char> = text.trim().chars().map(fold).collect();
            if let (Some(first), true) = (folded.first(), folded.len() >= MIN_TEXT_LENGTH) {
                texts.entry(*first).or_default().insert(folded);
            }
        }
        let words =
            names_and_addresses.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        let words = words.map(|word| word.chars().map(fold).collect::<Vec<char>>());
        Self { texts, words: words.filter(|word| word.len() >= MIN_WORD_LENGTH).collect() }
    }

    /// Redacts and truncates ThingSpace's code and text.
    pub(super) fn redact(&self, refusal: &mut Refusal) {
        let redact = |text: &mut Option<String>, max: usize| {
            let redacted = text.take().map(|text| self.redact_text(&text, max));
            *text = redacted.filter(|text| !text.is_empty());
        };
        redact(&mut refusal.thingspace_code, MAX_CODE_LENGTH);
        redact(&mut refusal.thingspace_text, MAX_TEXT_LENGTH);
    }

    /// Returns at most `max` characters of a text, with control characters replaced by spaces and hidden
    /// texts by `[redacted]`.
    pub(super) fn redact_text(&self, text: &str, max: usize) -> String {
        let text = text.trim();
        let folded: Vec<char> = text.chars().map(fold).collect();
        let mut redacted = String::new();
        let mut hidden_until = 0;
        let mut after_word = false;
        for (at, c) in text.chars().enumerate().take(MAX_INPUT_LENGTH) {
            let was_hidden = at < hidden_until;
            // Also inside a hidden text, because two hidden texts may overlap.
            let rest = folded.get(at..).unwrap_or_default();
            hidden_until = hidden_until.max(at + self.hidden_text_length(rest));
            if !after_word {
                hidden_until = hidden_until.max(at + self.hidden_word_length(rest));
            }
            after_word = rest.first().is_some_and(|c| c.is_alphanumeric());
            match (was_hidden, at < hidden_until) {
                (false, true) => redacted.push_str(PLACEHOLDER),
                (false, false) => redacted.push(if c.is_control() { ' ' } else { c }),
                (true, _) => {}
            }
        }
        redacted.chars().take(max).collect()
    }

    /// Returns the length of the longest hidden text at the start of `text`, or 0.
    fn hidden_text_length(&self, text: &[char]) -> usize {
        let candidates = text.first().and_then(|first| self.texts.get(first));
        let matches = candidates.into_iter().flatten().filter(|hidden| text.starts_with(hidden));
        matches.map(Vec::len).max().unwrap_or(0)
    }

    /// Returns the length of the word at the start of `text` if it is hidden, or 0.
    fn hidden_word_length(&self, text: &[char]) -> usize {
        let end = text.iter().position(|c| !c.is_alphanumeric());
        let word = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
        if self.words.contains(word) { word.len() } else { 0 }
    }
}

/// Maps a character to one lower-case character, so that positions stay the same.
fn fold(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests;
