//! Three replicas with one journal in PostgreSQL have one identity at ThingSpace.

use std::time::Duration;

use futures_util::future::join_all;
use thingspace_gateway::proto::{Change, ChangeEsimPlanRequest, ChangeState};
use thingspace_postgres_server::{Options, Version};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

use crate::support::{
    database::SearchedServer,
    gateway::{Gateway, Setup, TestDir},
    requests::{esim, parse_error},
    secrets::{found_below, found_in},
    thingspace::{AuthRefusal, CallKind, FakeResponse, FakeThingSpace},
    wait::{TEST_TIMEOUT, in_time},
};

const WRONG_PASSWORD: &str = "UnifiedWebService.INPUT_INVALID.Password.Invalid";

/// Replicas with one journal and one fake ThingSpace.
struct Cluster {
    thingspace: FakeThingSpace,
    server: SearchedServer,
    replicas: Vec<Replica>,
}

struct Replica {
    gateway: Gateway,
    setup: Setup,
    _directory: TestDir,
}

impl Cluster {
    async fn start(configure: impl Fn(Setup) -> Setup) -> Self {
        let options = Options::new(Version::Debian).without_fsync();
        let server = SearchedServer::start_new(options).await;
        let thingspace = FakeThingSpace::start().await;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            let directory = TestDir::new();
            let setup = Setup::serve(&thingspace.base_url(), &directory);
            let setup = configure(setup.postgres(&server.url("postgres")));
            replicas.push(Replica { gateway: setup.start().await, setup, _directory: directory });
        }
        Self { thingspace, server, replicas }
    }

    /// Kills each replica and starts it again. Returns the logs.
    async fn restart(&mut self) -> String {
        let mut log = String::new();
        for replica in &mut self.replicas {
            log += &replica.gateway.kill().await;
            replica.gateway = replica.setup.start().await;
        }
        log
    }

    /// Makes changes of one device at all replicas at the same time.
    async fn change_at_all(&self, round: usize, calls: usize) -> Vec<Result<Change, Status>> {
        let calls = (0..calls).flat_map(|call| (0..3).map(move |replica| (replica, call)));
        let calls = calls.map(|(replica, call)| {
            let device = round * 1_000 + replica * 100 + call;
            self.change_at(replica, esim(&format!("{round}-{replica}-{call}"), [device]))
        });
        join_all(calls).await
    }

    async fn change_at(
        &self,
        replica: usize,
        request: ChangeEsimPlanRequest,
    ) -> Result<Change, Status> {
        let mut client = self.replicas[replica].gateway.client().await;
        let mut request = Request::new(request);
        request.set_timeout(Duration::from_secs(10));
        let response = in_time(client.change_esim_plan(request)).await?;
        Ok(response.into_inner().change.expect("a change"))
    }
}

fn assert_refused(results: Vec<Result<Change, Status>>) {
    for result in results {
        let error = parse_error(&result.expect_err("refused"));
        let expected = (Code::FailedPrecondition, "GATEWAY_CREDENTIALS", "LATER", Some("NO"));
        assert_eq!(error.summary(), expected, "{error:?}");
    }
}

/// Repeats a change with a wrong password until the replicas have logged in twice.
async fn change_until_second_log_in(cluster: &Cluster, replica: usize) {
    let start = Instant::now();
    while cluster.thingspace.login_count() < 2 {
        assert!(start.elapsed() < 3 * TEST_TIMEOUT, "no second log-in");
        let key = format!("again-{replica}");
        let status = cluster.change_at(replica, esim(&key, [replica])).await.expect_err("refused");
        // Another replica may log in before.
        let delay = 1 + parse_error(&status).retry_after.expect("a delay").unsigned_abs();
        sleep(Duration::from_secs(delay.min(5))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_postgres_replicas_with_a_wrong_password_make_two_log_ins_over_two_restarts_each() {
    let mut cluster = Cluster::start(|setup| setup).await;
    let refused = FakeResponse::error(400, WRONG_PASSWORD, "no");
    cluster.thingspace.respond_always(CallKind::Login, refused);
    assert_refused(cluster.change_at_all(0, 5).await);
    assert_eq!(cluster.thingspace.login_count(), 1);
    cluster.restart().await;
    assert_refused(cluster.change_at_all(1, 5).await);
    assert_eq!(cluster.thingspace.login_count(), 1);

    // The second log-in is a minute after the first one.
    join_all((0..3).map(|replica| change_until_second_log_in(&cluster, replica))).await;
    assert_refused(cluster.change_at_all(2, 5).await);
    assert_eq!(cluster.thingspace.login_count(), 2);
    cluster.restart().await;
    for result in cluster.change_at_all(3, 5).await {
        let message = result.expect_err("locked out").message().to_owned();
        assert!(message.contains("reset-lockout"), "{message}");
    }
    assert_eq!((cluster.thingspace.login_count(), cluster.thingspace.posts()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_postgres_replicas_log_in_once_and_store_neither_token_nor_session_in_clear() {
    let mut cluster = Cluster::start(|setup| setup).await;
    let mut secrets = cluster.thingspace.secrets().to_vec();
    for result in cluster.change_at_all(0, 3).await {
        assert_eq!(result.unwrap().state(), ChangeState::Accepted);
    }
    let mut log = cluster.restart().await;
    for result in cluster.change_at_all(1, 3).await {
        assert_eq!(result.unwrap().state(), ChangeState::Accepted);
    }
    assert_eq!((cluster.thingspace.token_requests(), cluster.thingspace.login_count()), (1, 1));

    // One replica logs in again for all.
    cluster.thingspace.expire(AuthRefusal::SessionExpired);
    for result in cluster.change_at_all(2, 3).await {
        assert_eq!(result.unwrap().state(), ChangeState::Accepted);
    }
    assert_eq!((cluster.thingspace.token_requests(), cluster.thingspace.login_count()), (1, 2));
    assert_eq!(cluster.thingspace.executed(), 27);

    secrets.extend(cluster.thingspace.secrets());
    log += &cluster.restart().await;
    assert_eq!(found_in(log.as_bytes(), &secrets), [""; 0]);
    let data = cluster.server.data_dir();
    assert_eq!(found_below(&data, &secrets), [""; 0]);
    // The search finds what is stored.
    assert!(!found_below(&data, &["thingspace_session"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_postgres_replicas_send_as_many_changes_a_minute_as_one() {
    let cluster = Cluster::start(|setup| setup.set("thingspace.changes_per_minute", "3")).await;
    let start = Instant::now();
    let results = cluster.change_at_all(0, 4).await;
    // Each 20 s, there is one more permit.
    let granted = 3 + usize::try_from(start.elapsed().as_secs() / 20).unwrap();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert!((3..=granted).contains(&accepted), "{accepted} changes were sent");
    assert_eq!(cluster.thingspace.posts(), accepted);
    let throttled = (Code::ResourceExhausted, "THROTTLED", "LATER", Some("NO"));
    for status in results.into_iter().filter_map(Result::err) {
        let error = parse_error(&status);
        assert_eq!(error.summary(), throttled, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_after_of_one_postgres_replica_pauses_all() {
    let cluster = Cluster::start(|setup| setup).await;
    let body = r#"{"errorCode":"429","errorMessage":"Too many requests"}"#;
    let response = FakeResponse::custom(429, &[("retry-after", "3600")], body);
    cluster.thingspace.respond_once(CallKind::Change, response);
    for replica in 0..3 {
        let request = esim(&replica.to_string(), [replica]);
        let error = parse_error(&cluster.change_at(replica, request).await.expect_err("throttled"));
        let throttled = (Code::ResourceExhausted, "THROTTLED", "LATER", Some("NO"));
        assert_eq!(error.summary(), throttled, "{error:?}");
        assert!(error.retry_after > Some(3_000), "{error:?}");
    }
    assert_eq!(cluster.thingspace.posts(), 1);
}
