//! Several replicas with one identity.

use futures_util::future::join_all;
use secrecy::ExposeSecret;

use super::*;
use crate::thingspace::{
    session::{AuthHeaders, shared_session::LEASE},
    shared::testing::SharedStore,
};

/// Starts three replicas.
fn three_replicas(store: &Arc<SharedStore>, fake: &Arc<FakeLogin>) -> [Arc<SessionManager>; 3] {
    std::array::from_fn(|_| fake.replica(Some(store.join())))
}

fn session(headers: &AuthHeaders) -> String {
    headers.session.text.expose_secret().to_owned()
}

/// Requests headers from all replicas at once, and returns their sessions.
async fn sessions(replicas: &[Arc<SessionManager>]) -> Vec<String> {
    let headers = join_all(replicas.iter().map(|replica| replica.fresh_headers(None))).await;
    headers.iter().map(|headers| session(headers.as_ref().ok().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn replicas_log_in_once_for_all_and_a_restarted_one_takes_the_result() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    *fake.session_delay.lock() = Duration::from_secs(25);
    let replicas = three_replicas(&store, &fake);
    assert_eq!(sessions(&replicas).await, ["session 1"; 3]);
    assert_eq!(fake.counts(), (1, 1, 2));

    let restarted = three_replicas(&store, &fake);
    assert_eq!(sessions(&restarted).await, ["session 1"; 3]);
    assert_eq!(fake.counts(), (1, 1, 2));

    // One of them renews the token, and the session stays in use.
    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    assert_eq!(sessions(&[&replicas[..], &restarted].concat()).await, ["session 1"; 6]);
    assert_eq!(fake.counts(), (2, 1, 2));
    // An expired token is not used.
    tokio::time::sleep(HOUR).await;
    assert_eq!(sessions(&three_replicas(&store, &fake)).await, ["session 1"; 3]);
    assert_eq!(fake.counts(), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_replica_waits_for_a_bounded_time_for_the_log_in_of_another() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    *fake.session_delay.lock() = Duration::from_secs(100);
    let [a, b, _] = three_replicas(&store, &fake);
    let log_in = tokio::spawn(async move { a.fresh_headers(None).await.is_ok() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    for _ in 0..10 {
        let refusal = b.fresh_headers(None).await.err().unwrap();
        assert_eq!(refusal.kind, RefusalKind::NotSent);
        assert!(refusal.detail.contains("another replica"), "{}", refusal.detail);
    }
    // The first call waited, and the others failed with it.
    assert!(start.elapsed() < 3 * LEASE, "{:?}", start.elapsed());
    assert!(log_in.await.unwrap());
    assert_eq!(sessions(&[b]).await, ["session 1"]);
    assert_eq!(fake.counts().1, 1);
}

#[tokio::test(start_paused = true)]
async fn another_replica_logs_in_after_the_lease_of_one_that_died() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    assert!(store.join().acquire_lease(LEASE).await.unwrap());
    assert_eq!(sessions(&three_replicas(&store, &fake)).await, ["session 1"; 3]);
    assert_eq!(fake.counts().1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_twice_by_all_replicas_together_over_restarts() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::CredentialsRefused), 100));
    for _ in 0..2 {
        let replicas = three_replicas(&store, &fake);
        for _ in 0..5 {
            let calls = replicas.iter().map(|replica| replica.valid_headers(None));
            for result in join_all(calls).await {
                let refusal = result.err().unwrap();
                assert_eq!(refusal.kind, RefusalKind::Credentials);
                assert!(refusal.retry_after.unwrap() <= REFUSAL_INTERVAL);
            }
        }
        assert_eq!(fake.counts().1, 1);
    }
    for _ in 0..3 {
        let replicas = three_replicas(&store, &fake);
        for result in join_all(replicas.iter().map(call_until_settled)).await {
            let detail = result.unwrap_err().detail;
            assert!(detail.contains("reset-lockout"), "{detail}");
        }
        assert_eq!(fake.counts().1, 2);
    }
    assert!(fake.session_gaps()[0] >= REFUSAL_INTERVAL, "{:?}", fake.session_gaps());

    // An operator resets the lock-out at one replica for all.
    let replicas = three_replicas(&store, &fake);
    for result in join_all(replicas.iter().map(call_until_settled)).await {
        result.unwrap_err();
    }
    fake.sessions.lock().clear();
    replicas[0].reset_lockout().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions(&[&replicas[1..], &replicas[..1]].concat()).await, ["session 3"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_log_in_is_retried_after_one_delay_for_all_replicas() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    fake.sessions(std::iter::repeat_n(Err(LoginFailure::Unrecognised), 12));
    let replicas = three_replicas(&store, &fake);
    let calls = replicas.iter().map(call_until_settled);
    for result in join_all(calls).await {
        result.unwrap();
    }
    let gaps = fake.session_gaps();
    assert_eq!(gaps.len(), 12);
    assert!(gaps[0] >= UNRECOGNISED_BACKOFF.initial / 2, "{gaps:?}");
    assert!(gaps[11] >= UNRECOGNISED_BACKOFF.max / 2, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_thingspace_refused_is_replaced_once_for_all_replicas() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    let replicas = three_replicas(&store, &fake);
    assert_eq!(sessions(&replicas).await, ["session 1"; 3]);
    let mut headers = Vec::new();
    for replica in &replicas {
        headers.push(replica.valid_headers(None).await.ok().unwrap());
    }
    assert!(!headers[0].is_shared(StaleAuth::Session) && headers[1].is_shared(StaleAuth::Session));
    for (replica, headers) in replicas.iter().zip(&headers) {
        replica.discard(headers, StaleAuth::Session);
        assert_eq!(sessions(std::slice::from_ref(replica)).await, ["session 2"]);
    }
    assert_eq!(fake.counts().1, 2);

    // A restarted replica does not know the refusal of a session until its own first request.
    let restarted = fake.replica(Some(store.join()));
    let headers = restarted.valid_headers(None).await.ok().unwrap();
    assert_eq!(session(&headers), "session 2");
    restarted.discard(&headers, StaleAuth::Both);
    let headers = restarted.valid_headers(None).await.ok().unwrap();
    assert_eq!(session(&headers), "session 3");
    assert!(!headers.is_shared(StaleAuth::Both));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_overtaken_still_counts_its_refusal() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    fake.sessions([Err(LoginFailure::CredentialsRefused), Err(LoginFailure::CredentialsRefused)]);
    *fake.session_delay.lock() = 2 * LEASE;
    let a_store = store.join();
    let a = fake.replica(Some(a_store.clone()));
    let log_in = tokio::spawn(async move { a.fresh_headers(None).await.err().unwrap() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The first replica cannot extend its lease.
    a_store.set_away(true);
    tokio::time::sleep(LEASE).await;
    *fake.session_delay.lock() = Duration::ZERO;
    let b = fake.replica(Some(store.join()));
    assert_eq!(b.fresh_headers(None).await.err().unwrap().kind, RefusalKind::Credentials);
    a_store.set_away(false);
    assert_eq!(log_in.await.unwrap().kind, RefusalKind::Credentials);
    assert_eq!(fake.stored.lock().refused, 2);
    call_until_settled(&b).await.unwrap_err();
    assert_eq!(fake.counts().1, 2);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_replica_uses_its_token_and_does_not_log_in() {
    let (fake, store) = (Arc::new(FakeLogin::default()), Arc::new(SharedStore::default()));
    let own = store.join();
    let replica = fake.replica(Some(own.clone()));
    replica.fresh_headers(None).await.ok().unwrap();
    own.set_away(true);
    tokio::time::sleep(HOUR - RENEWAL_MARGIN).await;
    replica.fresh_headers(None).await.ok().unwrap();
    tokio::time::sleep(RENEWAL_MARGIN).await;
    let refusal = replica.fresh_headers(None).await.err().unwrap();
    assert_eq!(refusal.kind, RefusalKind::NotSent);
    assert!(refusal.detail.contains("the database is unavailable"), "{}", refusal.detail);
    assert_eq!(fake.counts(), (1, 1, 2));
}
