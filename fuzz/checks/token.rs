//! A resume token, which is a text from a client.

use thingspace_gateway::{
    domain::newtypes::{AccountName, ChangeId, RequestId},
    journal::{Cursor, Epoch, WatchTarget},
    watch::{ResumePoint, ResumeToken},
};

pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match ResumeToken::decode(text) {
            // A token has exactly one text.
            Ok(token) => assert_eq!(token.encode(), text),
            Err(error) => assert_eq!(error.to_string(), "not a valid resume token"),
        }
    }
    let Some((change, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let Some(token) = token(rest) else { return };
    let text = token.encode();
    assert_eq!(ResumeToken::decode(&text), Ok(token.clone()));
    let [at, byte, ..] = *change;
    check_changed_texts(&text, &token, usize::from(at), byte);
}

/// Returns a token of these bytes.
fn token(data: &[u8]) -> Option<ResumeToken> {
    let (side, data) = data.split_first()?;
    let (numbers, name) = data.split_first_chunk::<24>()?;
    let number = |from: usize, to: usize| {
        let bytes = numbers.get(from..to).unwrap_or_default();
        bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
    };
    let target = match <[u8; 16]>::try_from(name) {
        Ok(id) => WatchTarget::Change(ChangeId::from_bytes(id)),
        Err(_) if side % 2 == 1 => {
            WatchTarget::Account(AccountName::parse(std::str::from_utf8(name).ok()?).ok()?)
        }
        Err(_) => WatchTarget::Request(RequestId::parse(std::str::from_utf8(name).ok()?).ok()?),
    };
    let event = Cursor { position: number(8, 16), index: u32::try_from(number(16, 20)).ok()? };
    let event_hash = u32::try_from(number(20, 24)).ok()?;
    let (resume_point, cursor, event_hash) = match side % 3 {
        0 => (ResumePoint::AfterEvent, event, event_hash),
        1 => (ResumePoint::AtFirstEvent, event, event_hash),
        _ => (ResumePoint::NoEventsUpTo(event.position), Cursor::START, 0),
    };
    let removals = match target {
        WatchTarget::Account(_) => number(4, 12),
        WatchTarget::Change(_) | WatchTarget::Request(_) => 0,
    };
    let epoch = Epoch(number(0, 8));
    Some(ResumeToken { epoch, cursor, event_hash, resume_point, target, removals })
}

/// A changed text is rejected, or it is the same token.
fn check_changed_texts(text: &str, token: &ResumeToken, at: usize, byte: u8) {
    let at = at % text.len();
    let mut changed = text.as_bytes().to_vec();
    changed[at] = byte;
    let cut = &text.as_bytes()[..at];
    let longer = [text.as_bytes(), &[byte]].concat();
    let swapped = {
        let mut swapped = text.as_bytes().to_vec();
        swapped.rotate_left(at);
        swapped
    };
    for other in [&changed[..], cut, &longer, &swapped] {
        let Ok(other) = std::str::from_utf8(other) else {
            continue;
        };
        match ResumeToken::decode(other) {
            Ok(decoded) => assert!(other == text && decoded == *token, "{other}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
