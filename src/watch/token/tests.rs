use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_round_trips_and_an_altered_token_is_rejected(
        epoch: u64, position: u64, index: u32, hash: u32,
        id: [u8; 16], request in "[!-~]{1,128}", account in "[0-9-]{3,32}", kind in 0..3,
        count: u64,
        side in 0..3, at: prop::sample::Index, other: u8,
    ) {
        let (target, removals) = match kind {
            0 => (WatchTarget::Change(ChangeId::from_bytes(id)), 0),
            1 => (WatchTarget::Request(RequestId::parse(request).unwrap()), 0),
            _ => (WatchTarget::Account(AccountName::parse(account).unwrap()), count),
        };
        let event = Cursor { position, index };
        let (resume_point, cursor, event_hash) = match side {
            0 => (ResumePoint::AfterEvent, event, hash),
            1 => (ResumePoint::AtFirstEvent, event, hash),
            _ => (ResumePoint::NoEventsUpTo(position), Cursor::START, 0),
        };
        let epoch = Epoch(epoch);
        let token =
            ResumeToken { epoch, cursor, event_hash, resume_point, target, removals };
        let text = token.encode();
        prop_assert_eq!(ResumeToken::decode(&text), Ok(token));
        let at = at.index(text.len());
        prop_assert_eq!(ResumeToken::decode(text.get(..at).unwrap()), Err(InvalidResumeToken));
        let mut changed = text.clone().into_bytes();
        changed[at] = b'!'.wrapping_add(other % 90);
        let changed = String::from_utf8(changed).unwrap();
        if changed != text {
            prop_assert_eq!(ResumeToken::decode(&changed), Err(InvalidResumeToken));
        }
    }

    #[test]
    fn decoding_arbitrary_text_does_not_panic(text: String) {
        prop_assert!(ResumeToken::decode(&text).is_err());
    }
}
