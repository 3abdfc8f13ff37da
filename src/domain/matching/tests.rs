use std::convert::Infallible;

use proptest::{collection::vec, prelude::*};

use super::*;

fn id(kind: &str, id: &str) -> ReportedId {
    ReportedId { kind: kind.to_owned(), id: id.to_owned() }
}

fn find(
    kinds: IdentifyingKinds,
    sent: &[&[(&str, &str)]],
    reported: &[ReportedId],
) -> (Option<u32>, Match) {
    let sent: Vec<(u32, DeviceId)> = sent
        .iter()
        .zip(0..)
        .flat_map(|(ids, index)| {
            ids.iter()
                .map(move |(kind, id)| (index, DeviceId::new(kind.parse().unwrap(), *id).unwrap()))
        })
        .collect();
    find_device(kinds, sent.iter().map(|(index, _)| index + 1).max().unwrap(), reported, |key| {
        Ok::<_, Infallible>(
            sent.iter()
                .filter(|(_, id)| MatchKey::from_id(id).is_same(key))
                .map(|(index, _)| *index)
                .collect::<Vec<_>>(),
        )
    })
    .unwrap()
}

const ESIM: IdentifyingKinds = IdentifyingKinds::Only(IdentifierKind::Iccid);
const FIVE_G_BI: IdentifyingKinds = IdentifyingKinds::All;
const EID: (&str, &str) = ("eid", "89049032000001000000000000000001");

#[test]
fn an_esim_result_belongs_to_the_profile_with_its_iccid() {
    let sent: &[&[(&str, &str)]] =
        &[&[EID, ("iccid", "89148000000800139708")], &[EID, ("iccid", "89148000000800139716")]];
    let both = |iccid: &str| [id("Eid", EID.1), id("Iccid", iccid), id("imei", "990013907835573")];
    assert_eq!(find(ESIM, sent, &both("89148000000800139716")), (Some(1), Match::Exact));
    assert_eq!(find(ESIM, sent, &both("8914800000080013970")), (Some(0), Match::Exact));
    assert_eq!(find(ESIM, sent, &both("89148000000800139709")), (None, Match::None));
    assert_eq!(find(ESIM, sent, &[id("eid", EID.1)]), (None, Match::None));
}

#[test]
fn a_listed_device_and_a_result_agree_if_they_share_an_identifier_and_contradict_in_none() {
    let named = [id("MDN", "5125550142"), id("otaid", "x")];
    let agrees = |listed: &[ReportedId]| can_be_same_device(&named, listed);
    assert!(agrees(&[id("msisdn", "15125550142"), id("meid", "A1")]));
    assert!(agrees(&[id("mdn", "5125550143"), id("mdn", "5125550142")]));
    assert!(!agrees(&[id("mdn", "5125550143")]));
    assert!(!agrees(&[id("meid", "A1")]));
    let both = [id("mdn", "5125550142"), id("meid", "A2")];
    assert!(!can_be_same_device(&both, &[id("mdn", "5125550142"), id("meid", "A1")]));
}

#[test]
fn nineteen_digits_that_begin_two_of_the_iccids_are_ambiguous() {
    let sent: &[&[(&str, &str)]] =
        &[&[EID, ("iccid", "89148000000800139708")], &[EID, ("iccid", "89148000000800139709")]];
    let found = find(ESIM, sent, &[id("iccid", "8914800000080013970")]);
    assert_eq!(found, (None, Match::Ambiguous));
}

#[test]
fn a_5g_result_belongs_to_the_device_that_shares_an_identifier_in_any_spelling() {
    let sent: &[&[(&str, &str)]] =
        &[&[("meid", "A100003685E561")], &[("mdn", "5555551234"), ("imei", "990013907835573")]];
    let find = |ids: &[ReportedId]| find(FIVE_G_BI, sent, ids);
    assert_eq!(find(&[id("MeId", "a100003685e561")]), (Some(0), Match::Exact));
    assert_eq!(find(&[id("msisdn", "15555551234")]), (Some(1), Match::Exact));
    assert_eq!(find(&[id("mdn", "5555559999")]), (None, Match::None));
    assert_eq!(
        find(&[id("meid", "A100003685E561"), id("mdn", "5555551234")]),
        (None, Match::Ambiguous)
    );
    assert_eq!(find(&[id("otaid", "x"), id("mdn", "")]), (None, Match::None));
}

#[test]
fn an_unmatched_result_is_assumed_to_be_the_only_device() {
    let sent: &[&[(&str, &str)]] = &[&[("meid", "A100003685E561")]];
    let found = find(FIVE_G_BI, sent, &[id("mdn", "5555551234")]);
    assert_eq!(found, (Some(0), Match::Assumed));
}

#[test]
fn a_key_holds_a_value_of_any_length() {
    let key = |kind: &str, value: &str| MatchKey::from_reported(&id(kind, value)).unwrap();
    for length in [1, 31, 32, 33, 1_000] {
        let text = "a".repeat(length);
        assert_eq!(key("imei", &text), key("IMEI", &text.to_uppercase()));
        assert_eq!(key("imei", &text).index_key(), format!("imei:{}", text.to_uppercase()));
        assert_ne!(key("imei", &text), key("imei", &format!("{text}a")));
        assert_ne!(key("imei", &text), key("meid", &text));
    }
    // Only 19 and 20 digits are one ICCID, and only their first 19 digits are in the index.
    let iccid = key("iccid", "89148000000800139708");
    assert_eq!(iccid.index_key(), "iccid:8914800000080013970");
    assert!(iccid.is_same(&key("iccid", "8914800000080013970")));
    assert!(!iccid.is_same(&key("iccid", "891480000008001397")));
    // A letter of several bytes at the 19th place.
    assert_eq!(key("iccid", "891480000008001397é").index_key(), "iccid:891480000008001397é");
    assert_eq!(key("msisdn", "15125550142").index_key(), "mdn:5125550142");
}

#[test]
fn an_identifier_of_two_devices_is_found_with_the_first_one() {
    let mut seen = SeenIdentifiers::with_capacity(1);
    let mut insert = |device, kind: &str, value: &str| {
        seen.insert(device, &DeviceId::new(kind.parse().unwrap(), value).unwrap())
    };
    assert_eq!(insert(0, "iccid", "89148000000800139708"), None);
    assert_eq!(insert(1, "iccid", "89148000000800139709"), None);
    assert_eq!(insert(2, "iccid", "8914800000080013970"), Some(0));
    assert_eq!(insert(3, "iccid", "89148000000800139709"), Some(1));
    assert_eq!(insert(4, "iccid", "89148000000800139705"), Some(2));
    assert_eq!(insert(5, "iccid", "8914800000080013970"), Some(0));
    assert_eq!(insert(5, "iccid", "8914800000080013971"), None);
    assert_eq!(insert(6, "iccid", "89148000000800139710"), Some(5));
    // One number in two spellings is not another device.
    assert_eq!(insert(5, "mdn", "5125550142"), None);
    assert_eq!(insert(5, "msisdn", "15125550142"), None);
    assert_eq!(insert(6, "msisdn", "15125550142"), Some(5));
}

proptest! {
    #[test]
    fn a_duplicate_is_found_as_by_the_comparison_with_all_earlier_identifiers(
        ids in vec((any::<bool>(), 0..3_u8, 0..3_u8), 0..12),
    ) {
        let mut seen = SeenIdentifiers::with_capacity(0);
        let mut earlier: Vec<MatchKey> = Vec::new();
        for (device, (is_long, prefix, last)) in ids.into_iter().enumerate() {
            let last = if is_long { last.to_string() } else { String::new() };
            let value = format!("891480000008001397{prefix}{last}");
            let id = DeviceId::new(IdentifierKind::Iccid, value).unwrap();
            let key = MatchKey::from_id(&id);
            let expected = earlier.iter().position(|other| other.is_same(&key));
            prop_assert_eq!(seen.insert(device, &id), expected);
            earlier.push(key);
        }
    }
}
