//! One run: a seed, a sandbox, a gateway that is killed three times, a hundred clients.

use std::{collections::HashMap, net::SocketAddr, process::Stdio, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream};
use thingspace_gateway::proto::{self, Source};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    Coverage, SITUATIONS,
    clients::{Order, connect, follow},
    judge::{Evidence, Told},
    ledger::Ledger,
    proxy::{Proxy, Target},
};
use crate::{
    guarantees::Recording,
    support::{
        gateway::{Client, Directory, Gateway, PATIENCE, Setup},
        history::reference,
        requests::{Watch, get_by_key, stored, watch_key, watch_request},
    },
};

const CHANGES: usize = 100;
const KILLS: usize = 3;
const CLIENTS: usize = 12;

/// What ten runs meet, whatever their order.
pub const EXPECTED: [&str; 9] = [
    "ended CLOSED",
    "ended FINISHED",
    "ended NOT_SENT",
    "ended REJECTED",
    "kill -9",
    "result by a callback",
    "result by a look-up",
    "stream resumed",
    "was OUTCOME_UNKNOWN",
];

/// What a seed asks for.
fn orders(seed: u64) -> Vec<Order> {
    let mut random = fastrand::Rng::with_seed(seed);
    let order = |number: usize| {
        let count = random.usize(8..40);
        let mut devices: Vec<String> = (0..count)
            .map(|device| format!("8914{:016}", (number + 1) * 1_000 + device))
            .collect();
        if random.f64() < 0.4 {
            let situation = SITUATIONS[random.usize(0..SITUATIONS.len())];
            let place = random.usize(0..count);
            devices[place] = format!("99949{situation:02}{number:013}");
        }
        let impatience = |random: &mut fastrand::Rng| {
            let asked = random.f64() < 0.25;
            let time = Duration::from_millis(random.u64(1..400));
            asked.then_some(time)
        };
        Order {
            key: format!("order-{seed}-{number}"),
            devices,
            retries: random.f64() < 0.8,
            doubled: random.f64() < 0.2,
            deadline: impatience(&mut random),
            cancelled: impatience(&mut random),
        }
    };
    (0..CHANGES).map(order).collect()
}

/// A sandbox in a process of its own. Killed when dropped.
struct Sandbox {
    _child: Child,
    _log: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

async fn sandbox(seed: u64, callbacks: SocketAddr) -> Sandbox {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
    command.arg("sandbox").env_clear().kill_on_drop(true);
    for (setting, value) in [
        ("sandbox.seed", seed.to_string()),
        (
            "sandbox.callback_url",
            format!("http://{callbacks}/callbacks/{{service}}"),
        ),
        ("sandbox.listen", "127.0.0.1:0".into()),
        ("sandbox.order", "shuffled".into()),
        ("sandbox.failure_share", "0.1".into()),
        ("sandbox.duplicate_share", "0.1".into()),
        ("sandbox.lost_share", "0.01".into()),
        ("sandbox.late_share", "0.05".into()),
        ("sandbox.late_by", "1s".into()),
        ("sandbox.interim_for", "300ms".into()),
        ("sandbox.early_share", "0.02".into()),
        ("sandbox.malformed_share", "0.01".into()),
        ("sandbox.slow_answer", "1s".into()),
        ("sandbox.time_scale", "0.3".into()),
        ("telemetry.log_format", "json".into()),
    ] {
        command.arg(format!("--{setting}={value}"));
    }
    command.stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    loop {
        let line = timeout(PATIENCE, log.next_line()).await.expect("in time");
        let line = line.expect("readable").expect("the sandbox starts");
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = event["address"].as_str() {
            return Sandbox {
                _child: child,
                address: address.parse().expect("an address"),
                _log: log,
            };
        }
    }
}

/// Where the gateway is, for clients and for callbacks.
struct Places {
    grpc: watch::Sender<Option<SocketAddr>>,
    callbacks: watch::Sender<Option<SocketAddr>>,
}

impl Places {
    fn are(&self, gateway: Option<&Gateway>) {
        self.grpc.send_replace(gateway.map(|gateway| gateway.grpc));
        self.callbacks
            .send_replace(gateway.map(|gateway| gateway.callbacks));
    }
}

/// Kills the gateway when so many changes have been asked for, and starts it again.
async fn kill(
    setup: &Setup,
    mut gateway: Gateway,
    places: &Places,
    mut started: watch::Receiver<usize>,
    seed: u64,
) -> Gateway {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
    let mut moments: Vec<usize> = (0..KILLS).map(|_| random.usize(1..CHANGES)).collect();
    moments.sort_unstable();
    for moment in moments {
        let reached = started.wait_for(|count| *count >= moment);
        let _count = *timeout(PATIENCE, reached)
            .await
            .expect("in time")
            .expect("clients");
        // Some way into what is under way, not always its first step.
        for _ in 0..random.usize(0..2_000) {
            tokio::task::yield_now().await;
        }
        places.are(None);
        gateway.kill().await;
        gateway = setup.start().await;
        places.are(Some(&gateway));
    }
    gateway
}

pub async fn run(seed: u64, coverage: &mut Coverage) -> Evidence {
    let directory = Directory::new();
    let places = Places {
        grpc: watch::Sender::new(None),
        callbacks: watch::Sender::new(None),
    };
    let to_gateway = Proxy::start(places.callbacks.subscribe(), 0.05, seed).await;
    let sandbox = sandbox(seed, to_gateway.address).await;
    let (_fixed, behind) = watch::channel(Some(sandbox.address));
    let to_sandbox = Proxy::start(behind, 0.3, seed + 1).await;
    let setup = Setup::serve(&format!("http://{}/api", to_sandbox.address), &directory)
        .set("changes.bind_after", "500ms")
        .set("changes.reconcile_after", "1s")
        .set("changes.overdue_after", "4s")
        .set("changes.give_up_after", "6s");
    let gateway = setup.start().await;
    places.are(Some(&gateway));

    let orders = orders(seed);
    let started = watch::Sender::new(0);
    let over = watch::Sender::new(false);
    let mut following = JoinSet::new();
    let clients = async {
        let mut asking = stream::iter(orders.iter().enumerate())
            .map(|(number, order)| {
                let asked = order.carry_out(places.grpc.subscribe(), &started);
                async move {
                    asked.await;
                    number
                }
            })
            .buffer_unordered(CLIENTS);
        while let Some(number) = asking.next().await {
            let key = orders[number].key.clone();
            let watching = follow(key, places.grpc.subscribe(), over.subscribe());
            following.spawn(async move { (number, watching.await) });
        }
    };
    let killing = kill(&setup, gateway, &places, started.subscribe(), seed);
    let both = timeout(3 * PATIENCE, async { tokio::join!(clients, killing) });
    let ((), gateway) = both.await.expect("every client knows in time");

    let streams = ended(following, &over).await;
    let sandbox = format!("http://{}", sandbox.address);
    let all_told = async { while Ledger::read(&sandbox, false).await.devices_pending > 0 {} };
    timeout(PATIENCE, all_told)
        .await
        .expect("callbacks come to an end");
    let mut target = places.grpc.subscribe();
    let evidence = examine(&mut target, &sandbox, orders, streams).await;
    drop(gateway);
    count(&evidence, coverage);
    evidence
}

/// The streams of every change. Those that do not end by themselves are cut, for the judge to see.
async fn ended(
    mut following: JoinSet<(usize, Vec<Recording>)>,
    over: &watch::Sender<bool>,
) -> HashMap<usize, Vec<Recording>> {
    let mut streams = HashMap::new();
    let in_time = timeout(PATIENCE, async {
        while let Some(followed) = following.join_next().await {
            let (number, recordings) = followed.expect("a follower");
            streams.insert(number, recordings);
        }
    });
    if in_time.await.is_err() {
        over.send_replace(true);
        while let Some(followed) = following.join_next().await {
            let (number, recordings) = followed.expect("a follower");
            streams.insert(number, recordings);
        }
    }
    streams
}

/// What everybody says afterwards.
async fn examine(
    target: &mut Target,
    sandbox: &str,
    orders: Vec<Order>,
    mut streams: HashMap<usize, Vec<Recording>>,
) -> Evidence {
    let mut client = connect(target).await;
    let mut told = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let change = get_by_key(&mut client, &order.key).await.ok();
        let whole = match &change {
            Some(_) => reference(&mut client, stored(watch_key(&order.key))).await,
            None => Recording::default(),
        };
        told.push(Told {
            change,
            whole,
            streams: streams.remove(&number).unwrap_or_default(),
            order,
        });
    }
    let before = Ledger::read(sandbox, true).await;
    let mut results = HashMap::new();
    for executed in &before.changes {
        let found = results_of(&mut client, &executed.request_id).await;
        results.insert(executed.request_id.clone(), found);
    }
    // Whoever asks again by the same key is answered, and nothing is sent.
    let again = told.iter().filter_map(|told| {
        let change = told.change.as_ref()?;
        let sends = change.state() == proto::ChangeState::NotSent;
        let mut client = client.clone();
        (!sends)
            .then_some(async move { client.change_esim_plan(told.order.request()).await.is_ok() })
    });
    join_all(again).await;
    Evidence {
        told,
        results,
        ledger: Ledger::read(sandbox, true).await,
    }
}

async fn results_of(client: &mut Client, request_id: &str) -> Vec<proto::DeviceResult> {
    match Watch::try_open(client, stored(watch_request(request_id))).await {
        Ok(watch) => watch.rest().await.results(),
        // Nothing of it is known.
        Err(_) => Vec::new(),
    }
}

fn count(evidence: &Evidence, coverage: &mut Coverage) {
    let mut met = |what: String| *coverage.entry(what).or_default() += 1;
    for _ in 0..KILLS {
        met("kill -9".into());
    }
    for told in &evidence.told {
        let state = told.state();
        met(format!("ended {state}"));
        let situation = told
            .order
            .devices
            .iter()
            .find_map(|id| id.strip_prefix("99949"));
        if let Some(situation) = situation {
            met(format!("situation {} ended {state}", &situation[..2]));
        }
        if told.passed_through("OutcomeUnknown") {
            met("was OUTCOME_UNKNOWN".into());
        }
        for stream in &told.streams {
            if !stream.from.is_empty() {
                met("stream resumed".into());
            }
        }
    }
    for result in evidence.results.values().flatten() {
        met(match result.source() {
            Source::Reconciled => "result by a look-up".into(),
            _ => "result by a callback".into(),
        });
    }
}
