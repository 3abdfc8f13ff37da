//! Tokens and sessions: how often, when, and what is told of their failure.

use super::*;

#[tokio::test]
async fn the_log_in_is_sent_as_thingspaces_pages_have_it() {
    let fake = Fake::start().await;
    client(&fake.base_url).prepare(None, soon()).await.unwrap();

    let token = &fake.seen(TOKEN)[0];
    assert_eq!(token.method, "POST");
    assert_eq!(
        token.headers["authorization"],
        "Basic dGhlLWtleTp0aGUtc2VjcmV0"
    );
    assert_eq!(
        token.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(token.body, "grant_type=client_credentials");
    let log_in = &fake.seen(LOG_IN)[0];
    assert_eq!(log_in.headers["authorization"], "Bearer token-1");
    assert_eq!(
        log_in.body,
        r#"{"username":"the-user","password":"the-password"}"#
    );
}

#[tokio::test]
async fn a_hundred_calls_at_once_log_in_once_and_once_more_when_the_session_dies_under_them() {
    let fake = Fake::start().await;
    let client = client(&fake.base_url);
    let ready = join_all((0..100).map(|_| client.prepare(None, soon()))).await;
    assert!(ready.iter().all(Result::is_ok));
    assert_eq!(fake.counts(), (1, 1, 0));

    fake.end_session();
    fake.gate_changes(100);
    let demand = esim();
    let answers = join_all((0..100).map(|_| client.change(&demand, None))).await;
    assert!(
        answers.iter().all(|a| matches!(a, Answer::Accepted(_))),
        "{answers:?}"
    );
    assert_eq!(fake.counts(), (1, 2, 200));
}

#[tokio::test]
async fn a_session_log_in_with_a_dead_token_gets_a_new_token_and_is_no_failed_log_in() {
    let fake = Fake::start().await;
    fake.script(LOG_IN, [answer(401, BAD_TOKEN)]);
    client(&fake.base_url).prepare(None, soon()).await.unwrap();
    assert_eq!(fake.counts(), (2, 2, 0));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_its_session_stays_in_use() {
    let fake = Fake::start().await;
    let client = client(&fake.base_url);
    client.prepare(None, soon()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_541)).await;
    tokio::time::resume();
    fake.script(TOKEN, [answer(503, "")]);
    client
        .prepare(None, soon())
        .await
        .expect("what is left of the old one does");
    client.prepare(None, soon()).await.unwrap();
    assert_eq!(fake.counts(), (3, 1, 0));
    assert!(matches!(
        client.change(&esim(), None).await,
        Answer::Accepted(_)
    ));
    assert_eq!(
        fake.seen(ESIM)[0].headers["authorization"],
        "Bearer token-2"
    );
}

#[tokio::test]
async fn refused_credentials_are_tried_twice_and_again_when_they_change_or_someone_says_so() {
    let fake = Fake::start().await;
    let source = source("wrong");
    let client = client_of(&fake.base_url, &source, FiveGBiMethod::Post);
    let refused = || {
        answer(
            401,
            r#"{"errorCode":"X.Y.Password","errorMessage":"the-user: WRONG"}"#,
        )
    };
    fake.script(LOG_IN, [refused(), answer(503, ""), refused(), refused()]);
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let many = join_all((0..20).map(|_| client.prepare(None, soon()))).await;
        assert!(many.iter().all(|one| *one == many[0]));
        kinds.push(many[0].clone().unwrap_err().refusal().kind);
        let shown = format!("{many:?}");
        assert!(
            !shown.contains("the-user") && !shown.contains("WRONG"),
            "{shown}"
        );
    }
    let [c, n] = [RefusalKind::Credentials, RefusalKind::NotSent];
    assert_eq!((kinds, fake.counts().1), (vec![c, n, c, c, c], 3));

    // Another process with the same book: a restart is no way around it.
    let restarted = client_of(&fake.base_url, &source, FiveGBiMethod::Post);
    restarted.prepare(None, soon()).await.unwrap_err();
    assert_eq!(fake.counts().1, 3);

    client.unlatch().await.unwrap();
    client.prepare(None, soon()).await.unwrap_err();
    assert_eq!(fake.counts().1, 4);
    *source.0.lock().unwrap() = "right";
    client.prepare(None, soon()).await.unwrap();
}

#[tokio::test]
async fn a_log_in_that_a_crash_cut_off_counts_half_and_four_of_them_may_have_been_refusals() {
    let fake = Fake::start().await;
    let source = source("right");
    let crashed = |times| source.1.lock().unwrap().insert("right", times);
    let fresh = || client_of(&fake.base_url, &source, FiveGBiMethod::Post);
    for crashes in 1..4 {
        crashed(crashes);
        fresh().prepare(None, soon()).await.unwrap();
        assert_eq!(source.1.lock().unwrap()["right"], 0);
    }
    assert_eq!(fake.counts().1, 3);

    crashed(4);
    fresh().prepare(None, soon()).await.unwrap_err();
    assert_eq!(fake.counts().1, 3);
    // The third log-in after one refusal and one crash is the last.
    crashed(3);
    fake.script(LOG_IN, [answer(401, r#"{"errorCode":"X.Y.Password"}"#)]);
    for _ in 0..3 {
        fresh().prepare(None, soon()).await.unwrap_err();
    }
    assert_eq!(fake.counts().1, 4);
}

#[tokio::test]
async fn trouble_with_the_log_in_is_told_apart_and_no_change_is_sent() {
    for (status, kind, wait) in [
        (503, RefusalKind::NotSent, None),
        (302, RefusalKind::NotSent, None),
        (429, RefusalKind::Throttled, Some(Duration::from_secs(7))),
        (401, RefusalKind::Credentials, None),
    ] {
        let fake = Fake::start().await;
        fake.script(TOKEN, [answer(status, "")]);
        let answer = client(&fake.base_url).change(&esim(), None).await;
        assert!(matches!(answer, Answer::NotExecuted(_)));
        let refusal = refusal_of(answer);
        assert_eq!((refusal.kind, refusal.retry_after), (kind, wait));
        assert_eq!(fake.counts(), (1, 0, 0));
    }
}
