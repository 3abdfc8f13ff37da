//! One caller does not block another: shares of the limits, and limits of each caller (docs/limits.md).

use std::{
    fs,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prost::Message as _;
use thingspace_gateway::proto::{GetServerInfoRequest, WatchAccountResponse};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::pb;

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    http::read_metrics,
    number, report,
    requests::{ACCOUNT, esim, parse_error, watch_account},
    wait::{eventually, in_time},
};

/// The header of a mesh, in which each call names its identity.
const HEADER: &str = "l5d-client-id";

/// A gateway with a policy of the callers `a` and `b`, which may do everything.
struct TwoCallers {
    gateway: Gateway,
    directory: TestDir,
}

fn policy(limits_of_a: &str) -> String {
    let caller = |name: &str, limits: &str| {
        format!(
            "[[caller]]\nname = \"{name}\"\nidentities = [\"mesh:{name}\"]\n[[caller.allow]]\n\
             permissions = [\"change\", \"watch\", \"list\"]\naccounts = [\"*\"]\n\
             [caller.limits]\n{limits}\n"
        )
    };
    format!("{}{}", caller("a", limits_of_a), caller("b", ""))
}

impl TwoCallers {
    async fn start(limits_of_a: &str, configure: impl FnOnce(Setup) -> Setup) -> Self {
        let directory = TestDir::new();
        let path = directory.join("policy.toml");
        fs::write(&path, policy(limits_of_a)).unwrap();
        let setup = Setup::sandbox()
            .set("journal.dir", &directory.join("journal").to_string_lossy())
            .set("auth.mode", "mesh")
            .set("auth.mesh_header", HEADER)
            .set("auth.mesh_trusted_cidrs", "127.0.0.0/8")
            .set("auth.policy_file", &path.to_string_lossy());
        Self { gateway: configure(setup).start().await, directory }
    }

    fn set_limits_of_a(&self, limits: &str) {
        let new = self.directory.join("policy.new");
        fs::write(&new, policy(limits)).unwrap();
        fs::rename(new, self.directory.join("policy.toml")).unwrap();
    }

    /// Opens watches of an account until one is refused.
    async fn watch_all(&self, caller: &str) -> (Vec<Streaming<WatchAccountResponse>>, Status) {
        let mut client = self.gateway.client().await;
        let mut watches = Vec::new();
        loop {
            let call = client.watch_account(as_caller(caller, watch_account(ACCOUNT)));
            match in_time(call).await {
                Ok(watch) => watches.push(watch.into_inner()),
                Err(status) => return (watches, status),
            }
        }
    }
}

fn as_caller<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(HEADER, caller.parse().unwrap());
    request
}

/// The subject and the name of the limit that a THROTTLED error names.
fn exhausted(status: &Status) -> (String, String) {
    let error = parse_error(status);
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::ResourceExhausted, "THROTTLED"),
        "{status:?}"
    );
    let details = pb::Status::decode(status.details()).unwrap().details;
    let quota = details.iter().find(|any| any.type_url.ends_with("google.rpc.QuotaFailure"));
    let quota = pb::QuotaFailure::decode(quota.unwrap().value.as_slice()).unwrap();
    let violation = quota.violations.into_iter().next().unwrap();
    (violation.subject, violation.quota_metric)
}

#[tokio::test]
async fn a_caller_that_opens_all_streams_it_can_leaves_the_other_its_part() {
    let callers = TwoCallers::start("", |setup| setup.set("limits.watches", "8")).await;
    let (watches_of_a, refused) = callers.watch_all("a").await;
    // Two of its own, and the common four.
    assert_eq!(watches_of_a.len(), 6);
    assert_eq!(exhausted(&refused).0, "gateway");
    let (watches_of_b, refused) = callers.watch_all("b").await;
    assert_eq!(watches_of_b.len(), 2);
    assert_eq!(exhausted(&refused).0, "gateway");
    drop(watches_of_a);
    eventually("the other caller gets the common part", async || {
        callers.watch_all("b").await.0.len() == 4
    })
    .await;
}

#[tokio::test]
async fn an_error_names_the_limit_of_the_caller_and_a_new_policy_applies_to_calls_in_progress() {
    let limits = "streams = 1\nchanges_per_minute = 1";
    let callers = TwoCallers::start(limits, |setup| setup).await;
    let mut client = callers.gateway.client().await;
    let (watches, refused) = callers.watch_all("a").await;
    assert_eq!(watches.len(), 1);
    assert_eq!(exhausted(&refused), ("caller".into(), "streams".into()));

    let mut change = async |caller: &str, key: &str| {
        in_time(client.change_esim_plan(as_caller(caller, esim(key, [1])))).await
    };
    change("a", "first").await.unwrap();
    let refused = change("a", "first").await.unwrap_err();
    assert_eq!(exhausted(&refused), ("caller".into(), "changes_per_minute".into()));
    let error = parse_error(&refused);
    assert_eq!(error.summary().3, Some("UNKNOWN"));
    assert!((50..=60).contains(&error.retry_after.unwrap()), "{refused:?}");
    for _ in 0..20 {
        change("b", "first").await.unwrap();
    }

    let metrics = read_metrics(&callers.gateway).await;
    let sample = |name: &str, labels: &str| {
        let start = format!("thingspace_gateway_caller_{name}{{{labels}}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start}: {metrics}")).to_owned()
    };
    assert_eq!(sample("streams", "thingspace_gateway_caller=\"a\""), "1");
    assert_eq!(sample("streams", "thingspace_gateway_caller=\"b\""), "0");
    for (caller, limit, count) in [
        ("a", "streams", "1"),
        ("a", "changes_per_minute", "1"),
        ("a", "inflight_calls", "0"),
        ("b", "changes_per_minute", "0"),
    ] {
        let labels =
            format!("thingspace_gateway_caller=\"{caller}\",thingspace_gateway_limit=\"{limit}\"");
        assert_eq!(sample("refusals_total", &labels), count, "{labels}");
    }

    callers.set_limits_of_a("streams = 3\nchanges_per_minute = 1000");
    eventually("the new limits apply", async || {
        change("a", "first").await.is_ok() && callers.watch_all("a").await.0.len() == 2
    })
    .await;
    drop(watches);
}

/// Latencies in ascending order.
struct Latencies(Vec<Duration>);

impl Latencies {
    /// Measures reads and changes of a caller, one after the other.
    async fn measure(gateway: &Gateway, caller: &str, calls: usize, run: &str) -> [Self; 2] {
        let mut client = gateway.client().await;
        let (mut reads, mut changes) = (Vec::new(), Vec::new());
        for number in 0..calls {
            let start = Instant::now();
            let info = client.get_server_info(as_caller(caller, GetServerInfoRequest {}));
            info.await.unwrap();
            reads.push(start.elapsed());
            let request = esim(&format!("{run}-{number}"), [1_000_000 + number]);
            let start = Instant::now();
            client.change_esim_plan(as_caller(caller, request)).await.unwrap();
            changes.push(start.elapsed());
        }
        [reads, changes].map(|mut latencies| {
            latencies.sort();
            Self(latencies)
        })
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

/// Keeps 1,000 change calls of a caller in flight, which is at its limit. A refused call is repeated after
/// the delay of the error, or at once if `is_rude`.
fn flood(
    client: &Client,
    is_rude: bool,
    stop: &Arc<AtomicBool>,
    refused: &Arc<AtomicU64>,
) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    for number in 0..1_000 {
        let mut client = client.clone();
        let (stop, refused) = (Arc::clone(stop), Arc::clone(refused));
        calls.spawn(async move {
            while !stop.load(Relaxed) {
                let request = esim(&format!("flood-{number}"), [number]);
                let Err(status) = client.change_esim_plan(as_caller("a", request)).await else {
                    continue;
                };
                refused.fetch_add(1, Relaxed);
                let delay = status.metadata().get("grpc-retry-pushback-ms");
                let delay = delay.and_then(|ms| ms.to_str().ok()?.parse().ok()).unwrap_or(1_000);
                if !is_rude {
                    // As the libraries of gRPC do, at a random time around the delay.
                    let delay = Duration::from_millis(delay).min(Duration::from_secs(1));
                    sleep(delay.mul_f64(0.5 + fastrand::f64())).await;
                }
            }
        });
    }
    calls
}

/// `TSGW_CALLERS_CALLS` sets the number of measured calls. The latencies are only reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_served_while_another_has_a_thousand_calls_at_its_limit() {
    let limits = "changes_per_minute = 60\ninflight_calls = 200";
    let callers = TwoCallers::start(limits, |setup| setup).await;
    let gateway = &callers.gateway;
    let calls = number("TSGW_CALLERS_CALLS", 100);
    let _warm_up = Latencies::measure(gateway, "b", calls / 5, "warm-up").await;
    for (kind, is_rude) in
        [("that waits for the delay of its error", false), ("that never waits", true)]
    {
        let alone = Latencies::measure(gateway, "b", calls, &format!("alone-{is_rude}")).await;
        let (stop, refused) = (Arc::default(), Arc::<AtomicU64>::default());
        let client = gateway.client().await;
        let flooding = flood(&client, is_rude, &stop, &refused);
        eventually("the other caller is at its limit", async || refused.load(Relaxed) > 2_000)
            .await;
        let start = Instant::now();
        let before = refused.load(Relaxed);
        let beside = Latencies::measure(gateway, "b", calls, &format!("beside-{is_rude}")).await;
        let refused = refused.load(Relaxed) - before;
        assert!(refused > 0, "the other caller was at its limit meanwhile");
        let rate = refused as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        drop(flooding);
        report(format_args!("beside a caller {kind}: {rate:.0} refused calls a second"));
        for (call, alone, beside) in
            [("read", &alone[0], &beside[0]), ("change", &alone[1], &beside[1])]
        {
            for percent in [50, 99] {
                let (alone, beside) = (alone.percentile(percent), beside.percentile(percent));
                let ratio = beside.as_secs_f64() / alone.as_secs_f64();
                report(format_args!(
                    "  {call} p{percent}: alone {alone:?}, beside {beside:?}, ratio {ratio:.2}"
                ));
            }
        }
    }
}
