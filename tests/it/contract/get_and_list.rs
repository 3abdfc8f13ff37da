//! GetChange and ListChanges.

use thingspace_gateway::proto::{
    ChangeState, GetChangeRequest, ListChangesRequest, WatchRequestRequest,
};
use tonic::Code;

use super::{REQUEST, UNKNOWN_ID};
use crate::support::{
    env::TestEnv,
    requests::{
        ACCOUNT, Watch, change_ids, eid, esim, five_g_bi, iccid, id, meid, parse_error, states,
        watch_key,
    },
    thingspace::{CallKind, FakeResponse},
};

#[tokio::test]
async fn a_change_is_found_by_its_id_request_or_key_and_not_by_two_of_them() {
    let mut env = TestEnv::start().await;
    let change = env.change_as(REQUEST, esim("key", [1])).await;
    assert_eq!(change.service_plan, "service plan name");
    assert_eq!((&*change.account_name, &*change.client_reference), (ACCOUNT, "job-7"));
    for time in [&change.create_time, &change.dispatch_time, &change.accept_time] {
        assert!(time.is_some(), "{change:?}");
    }

    let by = |change_id: &str, request_id: &str, account: &str, key: &str| GetChangeRequest {
        change_id: change_id.into(),
        request_id: request_id.into(),
        account_name: account.into(),
        idempotency_key: key.into(),
    };
    for request in
        [by(&change.change_id, "", "", ""), by("", REQUEST, "", ""), by("", "", ACCOUNT, "key")]
    {
        let response = env.client.get_change(request).await.unwrap().into_inner();
        assert_eq!(response.change.as_ref(), Some(&change));
    }
    for (request, field) in [
        (by("", "", "", ""), "change_id"),
        (by(&change.change_id, REQUEST, "", ""), "request_id"),
        (by("", REQUEST, ACCOUNT, "key"), "idempotency_key"),
        (by("", "", ACCOUNT, ""), "idempotency_key"),
        (by("", "", "", "key"), "account_name"),
        (by("no-uuid", "", "", ""), "change_id"),
    ] {
        let error = parse_error(&env.client.get_change(request.clone()).await.unwrap_err());
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", None);
        assert_eq!((error.summary(), &*error.fields[0]), (expected, field), "{request:?}");
    }
    let missing = (Code::NotFound, "CHANGE_NOT_FOUND", "NEVER", None);
    for request in [
        by(UNKNOWN_ID, "", "", ""),
        by("", UNKNOWN_ID, "", ""),
        by("", "", ACCOUNT, "another"),
        by("", "", "0000654321-00001", "key"),
    ] {
        let status = env.client.get_change(request.clone()).await.unwrap_err();
        assert_eq!(parse_error(&status).summary(), missing, "{request:?}");
    }
    let watch =
        WatchRequestRequest { change_id: UNKNOWN_ID.into(), ..WatchRequestRequest::default() };
    for request in [watch, watch_key("another")] {
        let status = Watch::try_open(&mut env.client, request).await.err().unwrap();
        assert_eq!(parse_error(&status).summary(), missing);
    }
}

#[tokio::test]
async fn changes_are_listed_newest_first_by_filter_and_page() {
    let mut env = TestEnv::start().await;
    let a = env.change(esim("a", [1, 2])).await;
    let mut elsewhere = five_g_bi("b", [1]);
    elsewhere.account_name = "0000654321-00001".into();
    let b = env.change(elsewhere).await;
    env.thingspace.respond_once(
        CallKind::Change,
        FakeResponse::error(400, "X.REQUEST_FAILED.DeviceNotFound", ""),
    );
    env.change_error(esim("c", [2, 3])).await;
    let d = env.change(esim("d", [40])).await;
    let c = env.get("c").await;
    let all = [&d, &c, &b, &a].map(|change| change.change_id.clone());

    let filter = ListChangesRequest::default;
    for (what, request, expected) in [
        ("all", filter(), vec![&d, &c, &b, &a]),
        (
            "account",
            ListChangesRequest { account_name: ACCOUNT.into(), ..filter() },
            vec![&d, &c, &a],
        ),
        (
            "state",
            ListChangesRequest { states: states(&[ChangeState::Rejected]), ..filter() },
            vec![&c],
        ),
        (
            "states",
            ListChangesRequest {
                states: states(&[ChangeState::Rejected, ChangeState::Accepted]),
                ..filter()
            },
            vec![&d, &c, &b, &a],
        ),
        (
            "time",
            ListChangesRequest {
                create_time_after: b.create_time,
                create_time_before: d.create_time,
                ..filter()
            },
            vec![&c, &b],
        ),
        (
            "profile",
            ListChangesRequest { device: Some(id("ICCID", iccid(2))), ..filter() },
            vec![&c, &a],
        ),
        (
            "profile by its first 19 digits",
            ListChangesRequest { device: Some(id("iccid", &iccid(40)[..19])), ..filter() },
            vec![&d],
        ),
        ("eUICC", ListChangesRequest { device: Some(id("eid", eid(3))), ..filter() }, vec![&c]),
        (
            "5G device in another spelling",
            ListChangesRequest { device: Some(id("Meid", meid(1).to_lowercase())), ..filter() },
            vec![&b],
        ),
        (
            "everything at once",
            ListChangesRequest {
                account_name: ACCOUNT.into(),
                states: states(&[ChangeState::Accepted]),
                device: Some(id("iccid", iccid(2))),
                create_time_before: d.create_time,
                ..filter()
            },
            vec![&a],
        ),
    ] {
        let page = env.client.list_changes(request).await.unwrap().into_inner();
        let expected: Vec<&str> = expected.iter().map(|change| &*change.change_id).collect();
        assert_eq!(change_ids(&page.changes), expected, "{what}");
    }

    let mut request = ListChangesRequest { page_size: 1, ..filter() };
    let mut listed = Vec::new();
    loop {
        let page = env.client.list_changes(request.clone()).await.unwrap().into_inner();
        assert!(page.changes.len() <= 1);
        listed.extend(page.changes.into_iter().map(|change| change.change_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        if listed.len() == 1 {
            // A new change does not move the next page.
            env.change(esim("e", [5])).await;
        }
    }
    assert_eq!(listed, all);
    let other_filter = ListChangesRequest { account_name: ACCOUNT.into(), ..request.clone() };
    let unreadable = ListChangesRequest { page_token: "!".into(), ..filter() };
    let negative = ListChangesRequest { page_size: -1, ..filter() };
    let unknown_kind = ListChangesRequest { device: Some(id("otaid", "1")), ..filter() };
    for (request, field) in [
        (other_filter, "page_token"),
        (unreadable, "page_token"),
        (negative, "page_size"),
        (unknown_kind, "device.kind"),
    ] {
        let error = parse_error(&env.client.list_changes(request).await.unwrap_err());
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", None);
        assert_eq!((error.summary(), error.fields.as_slice()), (expected, &[field.to_owned()][..]));
    }
}
