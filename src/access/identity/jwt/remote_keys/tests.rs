use axum::{
    Router,
    body::Body,
    http::{Response, StatusCode, header::LOCATION},
    routing::get,
};
use futures_util::{FutureExt as _, future::join_all};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    access::identity::{
        Checked, SharedIdentity,
        jwt::{
            TokenRules, TokenVerifier,
            test_tokens::{TestClock, TestKey, auth_config, claims, key_set},
        },
    },
    telemetry::AuthFailureReason,
};

/// An issuer's web server on the loopback interface.
struct Issuer {
    url: Url,
    answer: Arc<Mutex<Answer>>,
    reads: watch::Receiver<u64>,
}

#[derive(Clone)]
enum Answer {
    KeySet(String),
    Status(StatusCode),
    Redirect,
    /// This key set, once the channel has `true`.
    Held(String, watch::Receiver<bool>),
    /// No answer at all.
    Never,
    /// The header of a response without its body.
    OnlyHeader,
}

impl Answer {
    fn keys(keys: &[Value]) -> Self {
        Self::KeySet(key_set(keys))
    }

    async fn response(self) -> Response<Body> {
        let response = Response::builder();
        let built = match self {
            Self::KeySet(text) => response.body(Body::from(text)),
            Self::Status(status) => response.status(status).body(Body::from(key_set(&[]))),
            Self::Redirect => response.status(302).header(LOCATION, "/other").body(Body::empty()),
            Self::Held(text, mut held) => {
                held.wait_for(|is_released| *is_released).await.unwrap();
                response.body(Body::from(text))
            }
            Self::Never => std::future::pending().await,
            Self::OnlyHeader => {
                let stream = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
                response.body(Body::from_stream(stream))
            }
        };
        built.unwrap()
    }
}

impl Issuer {
    async fn start(answer: Answer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let (count, reads) = watch::channel(0);
        let current = Arc::clone(&answer);
        let handler = move || {
            count.send_modify(|count| *count += 1);
            let answer = current.lock().clone();
            answer.response()
        };
        let elsewhere = get(|| async { key_set(&[TestKey::ed25519().jwk("other")]) });
        let router = Router::new().route("/keys", get(handler)).route("/other", elsewhere);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answer, reads }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn reads(&self) -> u64 {
        *self.reads.borrow()
    }

    async fn wait_for_reads(&self, count: u64) {
        self.reads.clone().wait_for(|reads| *reads >= count).await.unwrap();
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// Reads only when a token asks for it, and then at once.
const ON_DEMAND: ReadTimes =
    ReadTimes { interval: HOUR, min_interval: Duration::ZERO, timeout: Duration::from_secs(20) };

/// A verifier of the issuer's tokens whose task runs.
fn verifier(issuer: &Issuer, times: ReadTimes) -> (Arc<TokenVerifier>, JoinHandle<()>) {
    let rules = TokenRules::new(&auth_config(&[]));
    let clock = Arc::new(TestClock::new());
    let verifier = TokenVerifier::with_read_times(rules, issuer.url.clone(), clock, times);
    let verifier = Arc::new(verifier.unwrap());
    let running = Arc::clone(&verifier);
    (verifier, tokio::spawn(async move { running.run().await }))
}

fn token(key: &TestKey, name: &str) -> String {
    key.token(&json!({"alg": "EdDSA", "kid": name}), &claims("fleet"))
}

fn is_ok(checked: Checked<SharedIdentity>) -> bool {
    checked.is_ok()
}

#[tokio::test]
async fn the_first_token_waits_for_the_keys_and_a_rotation_is_seen_at_the_first_new_token() {
    let (old, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[old.jwk("old")])).await;
    let (verifier, _task) = verifier(&issuer, ON_DEMAND);
    let mut changes = verifier.subscribe();
    assert!(is_ok(verifier.verify(&token(&old, "old")).await));
    assert_eq!(
        verifier.verify(&token(&new, "new")).await.err(),
        Some(AuthFailureReason::UnknownKey)
    );

    changes.changed().await;
    issuer.set(Answer::keys(&[old.jwk("old"), new.jwk("new")]));
    let identity = verifier.verify(&token(&new, "new")).await.unwrap();
    changes.changed().await;
    let reads = issuer.reads();
    assert!(is_ok(verifier.verify(&token(&old, "old")).await));
    assert_eq!(issuer.reads(), reads);

    // The issuer removes both. The gateway sees it when any token asks for an unknown key.
    issuer.set(Answer::keys(&[TestKey::ed25519().jwk("newest")]));
    assert!(verifier.verify(&token(&new, "unknown")).await.is_err());
    changes.changed().await;
    assert_eq!(verifier.recheck(&identity), Err(AuthFailureReason::UnknownKey));
    for (key, name) in [(&old, "old"), (&new, "new")] {
        let refused = verifier.verify(&token(key, name)).await.err();
        assert_eq!(refused, Some(AuthFailureReason::UnknownKey));
    }
}

#[tokio::test]
async fn the_keys_are_read_again_without_any_token() {
    let (old, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[old.jwk("old")])).await;
    let often = ReadTimes { interval: Duration::from_millis(1), ..ON_DEMAND };
    let (verifier, _task) = verifier(&issuer, often);
    let mut changes = verifier.subscribe();
    changes.changed().await;
    issuer.set(Answer::keys(&[new.jwk("new")]));
    changes.changed().await;
    assert!(is_ok(verifier.verify(&token(&new, "new")).await));
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_refuses_tokens_until_it_answers() {
    let key = TestKey::ed25519();
    let issuer = Issuer::start(Answer::Status(StatusCode::SERVICE_UNAVAILABLE)).await;
    let (verifier, _task) = verifier(&issuer, ON_DEMAND);
    let token = token(&key, "k");
    assert_eq!(verifier.verify(&token).await.err(), Some(AuthFailureReason::KeysUnavailable));
    issuer.set(Answer::keys(&[key.jwk("k")]));
    assert!(is_ok(verifier.verify(&token).await));
}

#[tokio::test]
async fn the_last_keys_stay_in_force_while_the_issuer_does_not_answer_well() {
    let key = TestKey::ed25519();
    let issuer = Issuer::start(Answer::keys(&[key.jwk("k")])).await;
    let short = ReadTimes { timeout: Duration::from_millis(500), ..ON_DEMAND };
    let (verifier, _task) = verifier(&issuer, short);
    assert!(is_ok(verifier.verify(&token(&key, "k")).await));
    let large = format!("{}{}", key_set(&[]), " ".repeat(MAX_SET_BYTES));
    for answer in [
        Answer::Status(StatusCode::SERVICE_UNAVAILABLE),
        Answer::Status(StatusCode::NO_CONTENT),
        Answer::Redirect,
        Answer::KeySet("<html>".to_owned()),
        Answer::KeySet(large),
        Answer::OnlyHeader,
        Answer::Never,
    ] {
        issuer.set(answer);
        let reads = issuer.reads();
        // The time-out of the wait and of the read are equal: either may be first.
        let refused = verifier.verify(&token(&key, "other")).await.unwrap_err();
        let expected = [AuthFailureReason::UnknownKey, AuthFailureReason::KeysUnavailable];
        assert!(expected.contains(&refused), "{refused:?}");
        issuer.wait_for_reads(reads + 1).await;
        let valid = key.token(&json!({"alg": "EdDSA", "kid": "k"}), &claims(&reads.to_string()));
        assert!(is_ok(verifier.verify(&valid).await));
    }
}

#[tokio::test]
async fn unknown_keys_cause_one_read_at_most_in_the_minimum_interval() {
    let key = TestKey::ed25519();
    let issuer = Issuer::start(Answer::keys(&[key.jwk("k")])).await;
    let rarely = ReadTimes { min_interval: HOUR, ..ON_DEMAND };
    let (verifier, _task) = verifier(&issuer, rarely);
    verifier.subscribe().changed().await;
    let unknown: Vec<_> =
        (0..1000).map(|number| token(&key, &format!("unknown{number}"))).collect();
    let mut calls: Vec<_> = unknown.iter().map(|token| Box::pin(verifier.verify(token))).collect();
    let ended = calls.iter_mut().filter_map(|call| call.now_or_never());
    let refused: Vec<_> = ended.map(|ended| ended.err()).collect();
    assert_eq!(refused, vec![Some(AuthFailureReason::KeysUnavailable); 1000 - MAX_WAITING]);
    assert_eq!(issuer.reads(), 1);
}

#[tokio::test]
async fn a_new_key_is_accepted_though_another_unknown_key_has_just_caused_a_read() {
    let (old, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[old.jwk("old")])).await;
    let short = ReadTimes { min_interval: Duration::from_millis(200), ..ON_DEMAND };
    let (verifier, _task) = verifier(&issuer, short);
    for number in 0..3 {
        let forged = verifier.verify(&token(&old, &format!("forged{number}"))).await;
        assert_eq!(forged.err(), Some(AuthFailureReason::UnknownKey));
    }
    issuer.set(Answer::keys(&[old.jwk("old"), new.jwk("new")]));
    assert!(is_ok(verifier.verify(&token(&new, "new")).await));
    assert!(issuer.reads() <= 5, "{}", issuer.reads());
}

#[tokio::test]
async fn a_read_that_began_before_the_call_does_not_decide_it() {
    let (old, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[old.jwk("old")])).await;
    let (verifier, _task) = verifier(&issuer, ON_DEMAND);
    assert!(is_ok(verifier.verify(&token(&old, "old")).await));
    let reads = issuer.reads();
    // The issuer has answered with its old keys, but the gateway has not received them yet.
    let (release, held) = watch::channel(false);
    issuer.set(Answer::Held(key_set(&[old.jwk("old")]), held));
    let forged_token = token(&old, "forged");
    let mut forged = Box::pin(verifier.verify(&forged_token));
    assert!((&mut forged).now_or_never().is_none());
    issuer.wait_for_reads(reads + 1).await;
    issuer.set(Answer::keys(&[old.jwk("old"), new.jwk("new")]));
    let new_token = token(&new, "new");
    let mut rotated = Box::pin(verifier.verify(&new_token));
    assert!((&mut rotated).now_or_never().is_none());
    release.send_replace(true);
    assert_eq!(forged.await.err(), Some(AuthFailureReason::UnknownKey));
    assert!(is_ok(rotated.await));
}

#[tokio::test]
async fn calls_with_an_unknown_key_share_one_read_and_their_number_is_bounded() {
    let (key, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[key.jwk("k")])).await;
    let (verifier, _task) = verifier(&issuer, ON_DEMAND);
    assert!(is_ok(verifier.verify(&token(&key, "k")).await));
    let reads = issuer.reads();

    // A read that ends in an error after 20 s, unless this test ends before.
    issuer.set(Answer::Never);
    let new_token = token(&new, "new");
    let mut waiting: Vec<_> =
        (0..MAX_WAITING).map(|_| Box::pin(verifier.verify(&new_token))).collect();
    for call in &mut waiting {
        assert!(call.now_or_never().is_none());
    }
    issuer.wait_for_reads(reads + 1).await;
    let one_more = verifier.verify(&new_token).now_or_never();
    assert_eq!(one_more.unwrap().err(), Some(AuthFailureReason::KeysUnavailable));
    // Calls with known keys do not wait.
    let known = key.token(&json!({"alg": "EdDSA", "kid": "k"}), &claims("other"));
    assert!(is_ok(verifier.verify(&known).now_or_never().unwrap()));
    assert_eq!(issuer.reads(), reads + 1);
    drop(waiting);
}

#[tokio::test]
async fn all_calls_that_wait_for_a_read_get_its_keys() {
    let (key, new) = (TestKey::ed25519(), TestKey::ed25519());
    let issuer = Issuer::start(Answer::keys(&[key.jwk("k")])).await;
    let (verifier, _task) = verifier(&issuer, ON_DEMAND);
    assert!(is_ok(verifier.verify(&token(&key, "k")).await));
    let reads = issuer.reads();
    issuer.set(Answer::keys(&[key.jwk("k"), new.jwk("new")]));
    let new_token = token(&new, "new");
    let verified = join_all((0..200).map(|_| verifier.verify(&new_token))).await;
    assert!(verified.into_iter().all(is_ok));
    assert_eq!(issuer.reads(), reads + 1);
}

#[test]
fn a_failed_read_is_repeated_less_and_less_often() {
    let times = ReadTimes::default();
    let retries = Backoff { initial: times.min_interval, max: times.interval };
    let delays: Vec<_> = (1..7).map(|failures| retries.delay(failures).as_secs()).collect();
    assert_eq!(delays, [5, 10, 20, 40, 60, 60]);
}
