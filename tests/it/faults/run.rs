//! One run: a seed, a sandbox, a gateway that is killed three times, a hundred clients.

use std::{collections::HashMap, fs};

use futures_util::{StreamExt as _, future::join_all, stream};
use thingspace_gateway::proto;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    clients::{FirstCall, connect},
    fault_injector::{FaultInjector, GatewayAddresses},
    judge::{ClientRecord, Evidence},
    ledger::Ledger,
    planned_changes::{PlannedChange, plan_changes},
    post_run::{PostRun, shift_clock_during_run},
    proxy::{Proxy, UpstreamAddress},
    sandbox::{ForeignClient, PASSWORD, SandboxProcess},
};
use crate::{
    guarantees::Recording,
    support::{
        disk::FaultyDisk,
        gateway::{Client, Setup, TEST_TIMEOUT, TestDir},
        history::reference,
        requests::{Watch, get_by_key, until_caught_up, watch_key, watch_request},
    },
};

/// Calls at a time.
const CLIENTS: usize = 12;

/// What is known of an order when its watch has ended.
struct WatchedChange {
    streams: Vec<Recording>,
    until: Instant,
}

/// Runs a seed. `broken` names the rule that the gateway breaks on purpose, in a build that can.
/// Answers with what was seen, and with what is wrong with what came after it.
pub async fn run(seed: u64, broken: Option<&str>) -> (Evidence, Vec<String>) {
    let directory = TestDir::new();
    let places = GatewayAddresses::new();
    let to_gateway = Proxy::start(places.callbacks.subscribe(), 0.05, seed).await;
    let sandbox = SandboxProcess::start(seed, to_gateway.address).await;
    let (_fixed, behind) = watch::channel(Some(sandbox.address));
    let to_sandbox = Proxy::start(behind, 0.3, seed + 1).await;
    let password = directory.join("uws_password");
    fs::write(&password, PASSWORD).expect("a file");
    let mut setup = Setup::serve(&format!("http://{}/api", to_sandbox.address), &directory)
        .without("TSGW_THINGSPACE__UWS_PASSWORD")
        .set("thingspace.uws_password_file", &password.to_string_lossy())
        .set("changes.attribution_quiet_period", "500ms")
        .set("changes.reconcile_after", "1s")
        .set("changes.overdue_after", "4s")
        .set("changes.close_after", "6s");
    let disk = FaultyDisk::new(&directory);
    setup = disk.attach(setup);
    if let Some(rule) = broken {
        setup = setup.env("TSGW_BROKEN", rule);
    }
    let gateway = setup.start().await;
    places.set(Some(&gateway));

    let orders = plan_changes(seed);
    let started = watch::Sender::new(0);
    let over = watch::Sender::new(false);
    let scene = FaultInjector {
        setup: &setup,
        addresses: &places,
        disk: &disk,
        password,
        foreign_client: sandbox.foreign_client(),
    };
    let asking = run_clients(&orders, &places, &started, &over, &scene.foreign_client);
    let playing = scene.inject_all(gateway, started.subscribe(), seed);
    let leaping = shift_clock_during_run(&disk, started.subscribe(), seed);
    let all = timeout(3 * TEST_TIMEOUT, async {
        tokio::join!(asking, playing, leaping)
    });
    let ((asked, following), (gateway, befallen), ()) =
        all.await.expect("every client knows in time");

    let followed = collect_watches(following, &over).await;
    let ledger = format!("http://{}", sandbox.address);
    let all_told = async { while Ledger::fetch(&ledger, false).await.devices_pending > 0 {} };
    timeout(TEST_TIMEOUT, all_told)
        .await
        .expect("callbacks come to an end");
    let mut target = places.grpc.subscribe();
    let (client_records, results) =
        collect_client_records(&mut target, &ledger, orders, asked, followed).await;
    let after = PostRun {
        setup: &setup,
        disk: &disk,
        directory: &directory,
        client_records: &client_records,
        results: &results,
    };
    let after = after.run(gateway, seed).await;
    let evidence = Evidence {
        client_records,
        results,
        ledger: Ledger::fetch(&ledger, true).await,
        fault_intervals: befallen,
        cuts: to_sandbox.cuts(),
        callback_cuts: to_gateway.cuts(),
    };
    (evidence, after)
}

/// Carries out all orders, some at a time; each is watched once it has been asked for.
async fn run_clients(
    orders: &[PlannedChange],
    places: &GatewayAddresses,
    started: &watch::Sender<usize>,
    over: &watch::Sender<bool>,
    stranger: &ForeignClient,
) -> (HashMap<usize, FirstCall>, JoinSet<(usize, WatchedChange)>) {
    let mut following = JoinSet::new();
    let mut all_asked = HashMap::new();
    let mut asking = stream::iter(orders.iter().enumerate())
        .map(async |(number, order)| {
            let asked = order.run_first_call(places.grpc.subscribe(), started);
            (
                number,
                tokio::join!(asked, run_foreign_client(order, stranger)).0,
            )
        })
        .buffer_unordered(CLIENTS);
    while let Some((number, asked)) = asking.next().await {
        all_asked.insert(number, asked);
        let order = orders[number].clone();
        let (gateway, over) = (places.grpc.subscribe(), over.subscribe());
        following.spawn(async move {
            let streams = order.follow(gateway, over).await;
            let until = Instant::now();
            (number, WatchedChange { streams, until })
        });
    }
    drop(asking);
    (all_asked, following)
}

/// Somebody else changes an order's devices, somewhere within its time.
async fn run_foreign_client(order: &PlannedChange, stranger: &ForeignClient) {
    if let Some((after, overlap)) = order.foreign_request {
        sleep(after).await;
        stranger.change_same_devices(order, overlap).await;
    }
}

/// The streams of every change. Those that do not end by themselves are cut, for the judge to see.
async fn collect_watches(
    mut following: JoinSet<(usize, WatchedChange)>,
    over: &watch::Sender<bool>,
) -> HashMap<usize, WatchedChange> {
    let mut all = HashMap::new();
    let in_time = timeout(TEST_TIMEOUT, async {
        while let Some(followed) = following.join_next().await {
            let (number, followed) = followed.expect("a follower");
            all.insert(number, followed);
        }
    });
    if in_time.await.is_err() {
        over.send_replace(true);
        while let Some(followed) = following.join_next().await {
            let (number, followed) = followed.expect("a follower");
            all.insert(number, followed);
        }
    }
    all
}

/// What everybody says afterwards.
async fn collect_client_records(
    target: &mut UpstreamAddress,
    sandbox: &str,
    orders: Vec<PlannedChange>,
    asked: HashMap<usize, FirstCall>,
    mut followed: HashMap<usize, WatchedChange>,
) -> (Vec<ClientRecord>, HashMap<String, Vec<proto::DeviceResult>>) {
    let mut client = connect(target).await;
    let mut client_records = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let change = get_by_key(&mut client, &order.key).await.ok();
        let whole = match &change {
            Some(_) => reference(&mut client, until_caught_up(watch_key(&order.key))).await,
            None => Recording::default(),
        };
        let WatchedChange { streams, until } = followed.remove(&number).expect("followed");
        client_records.push(ClientRecord {
            first_call: asked[&number],
            until,
            change,
            whole,
            streams,
            planned_change: order,
        });
    }
    let mut results = HashMap::new();
    for executed in &Ledger::fetch(sandbox, true).await.changes {
        let found = fetch_results(&mut client, &executed.request_id).await;
        results.insert(executed.request_id.clone(), found);
    }
    // Whoever asks again by the same key is answered, and nothing is sent: the ledger is read after this.
    let again = client_records.iter().filter_map(|client_record| {
        let change = client_record.change.as_ref()?;
        let sends = change.state() == proto::ChangeState::NotSent;
        let mut client = client.clone();
        (!sends).then_some(async move {
            client_record
                .planned_change
                .call(&mut client, None)
                .await
                .is_ok()
        })
    });
    join_all(again).await;
    (client_records, results)
}

pub async fn fetch_results(client: &mut Client, request_id: &str) -> Vec<proto::DeviceResult> {
    let request = proto::WatchRequestRequest {
        include_raw: true,
        ..until_caught_up(watch_request(request_id))
    };
    match Watch::try_open(client, request).await {
        Ok(watch) => watch.read_to_end().await.results(),
        // Nothing of it is known.
        Err(_) => Vec::new(),
    }
}
