use std::borrow::Cow;

use super::*;

fn path<'r>(account: Option<&'r str>, service: &'r str) -> CallbackPath<'r> {
    CallbackPath {
        route: "/callbacks/{service}",
        account: account.map(Cow::Borrowed),
        service: Cow::Borrowed(service),
        secret: Some(Cow::Borrowed("a-path-secret-of-a-test")),
    }
}

#[test]
fn the_newest_callbacks_are_kept_without_names_that_are_invalid() {
    let recent = RecentCallbacks::default();
    let push = |time, account, service| {
        let time = Timestamp::from_micros(time);
        recent.push(&path(account, service), time, CallbackOutcome::Stored, None, None);
    };
    for time in 0..1_000 {
        push(time, Some("0000123456-00001"), "CarrierService");
    }
    push(1_000, Some("<img src=x>"), "Carrier Service");
    push(1_001, None, &"a".repeat(65));
    let listed = recent.list();
    assert_eq!(listed.len(), CAPACITY);
    let times: Vec<_> = listed.iter().map(|callback| callback.time.as_micros()).collect();
    assert_eq!(times, (952..1_002).rev().collect::<Vec<_>>());
    let names = |index: usize| (listed[index].account.as_str(), listed[index].service.as_str());
    assert_eq!(names(0), ("", ""));
    assert_eq!(names(1), ("", ""));
    assert_eq!(names(2), ("0000123456-00001", "CarrierService"));
}
