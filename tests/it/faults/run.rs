//! One run of a seed: a sandbox, a gateway with faults, and a hundred clients.

use std::{collections::HashMap, fs};

use futures_util::{StreamExt as _, future::join_all, stream};
use thingspace_gateway::proto;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    account_watches::{AccountRecord, collect_account_watches, follow_account},
    checker::Evidence,
    client_record::{ClientRecord, FirstCall, WatchedChange},
    clients::{connect, follow, run_first_call},
    fault_injector::{FaultInjector, GatewayAddresses},
    planned_changes::{PlannedChange, plan_changes},
    post_run::{PostRun, shift_clock_during_run},
    proxy::{Proxy, UpstreamAddress},
    sandbox::{ForeignClient, PASSWORD, SandboxProcess},
};
use crate::{
    guarantees::Recording,
    support::{
        disk::FaultyDisk,
        gateway::{Setup, TestDir},
        history::reference,
        ledger::Ledger,
        requests::{
            ACCOUNT, get_by_key, stored_results, until_caught_up, watch_account, watch_key,
        },
        wait::{TEST_TIMEOUT, eventually},
    },
};

/// Number of concurrent clients.
const CLIENTS: usize = 12;

/// Runs a seed. `failpoint` names the rule that a build with the feature `failpoints` breaks.
/// Returns the evidence, and the violations after the run.
pub async fn run(seed: u64, failpoint: Option<&str>) -> (Evidence, Vec<String>) {
    let directory = TestDir::new();
    let addresses = GatewayAddresses::new();
    let to_gateway = Proxy::start(addresses.callbacks.subscribe(), 0.05, seed).await;
    let sandbox = SandboxProcess::start(seed, to_gateway.address).await;
    let (_fixed, upstream) = watch::channel(Some(sandbox.address));
    let to_sandbox = Proxy::start(upstream, 0.3, seed + 1).await;
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
    if let Some(name) = failpoint {
        setup = setup.failpoint(name);
    }
    let gateway = setup.start().await;
    addresses.set(Some(&gateway));

    let planned_changes = plan_changes(seed);
    let started = watch::Sender::new(0);
    let over = watch::Sender::new(false);
    let account_over = watch::Sender::new(false);
    let following_account = {
        let (gateway, over) = (addresses.grpc.subscribe(), account_over.subscribe());
        tokio::spawn(async move { follow_account(&gateway, &over, seed).await })
    };
    let injector = FaultInjector {
        setup: &setup,
        addresses: &addresses,
        disk: &disk,
        password,
        foreign_client: sandbox.foreign_client(),
    };
    let calling =
        run_clients(&planned_changes, &addresses, &started, &over, &injector.foreign_client);
    let injecting = injector.inject_all(gateway, started.subscribe(), seed);
    let shifting = shift_clock_during_run(&disk, started.subscribe(), seed);
    let all = timeout(3 * TEST_TIMEOUT, async { tokio::join!(calling, injecting, shifting) });
    let ((first_calls, following), (gateway, fault_intervals), ()) =
        all.await.expect("every client gets a definite result in time");

    let followed = collect_watches(following, &over).await;
    let ledger = format!("http://{}", sandbox.address);
    eventually("all devices have their outcome", async || {
        Ledger::fetch(&ledger, false).await.devices_pending == 0
    })
    .await;
    let account_streams = collect_account_watches(following_account, &account_over).await;
    let mut target = addresses.grpc.subscribe();
    let (client_records, results) =
        collect_client_records(&mut target, &ledger, planned_changes, first_calls, followed).await;
    let whole = reference(&mut connect(&mut target).await, watch_account(ACCOUNT)).await;
    let account = AccountRecord { clients: account_streams, whole };
    let post_run = PostRun {
        setup: &setup,
        disk: &disk,
        directory: &directory,
        client_records: &client_records,
        results: &results,
    };
    let violations = post_run.run(gateway, seed).await;
    let evidence = Evidence {
        client_records,
        account,
        results,
        ledger: Ledger::fetch(&ledger, true).await,
        fault_intervals,
        cuts: to_sandbox.cuts(),
        callback_cuts: to_gateway.cuts(),
    };
    (evidence, violations)
}

/// Makes all planned changes, and starts a watch after each first call.
async fn run_clients(
    planned_changes: &[PlannedChange],
    addresses: &GatewayAddresses,
    started: &watch::Sender<usize>,
    over: &watch::Sender<bool>,
    foreign: &ForeignClient,
) -> (HashMap<usize, FirstCall>, JoinSet<(usize, WatchedChange)>) {
    let mut following = JoinSet::new();
    let mut first_calls = HashMap::new();
    let mut calls = stream::iter(planned_changes.iter().enumerate())
        .map(async |(number, planned)| {
            let first_call = run_first_call(planned, addresses.grpc.subscribe(), started);
            (number, tokio::join!(first_call, run_foreign_client(planned, foreign)).0)
        })
        .buffer_unordered(CLIENTS);
    while let Some((number, first_call)) = calls.next().await {
        first_calls.insert(number, first_call);
        let planned = planned_changes[number].clone();
        let (gateway, over) = (addresses.grpc.subscribe(), over.subscribe());
        following.spawn(async move {
            let streams = follow(&planned, gateway, over).await;
            let until = Instant::now();
            (number, WatchedChange { streams, until })
        });
    }
    drop(calls);
    (first_calls, following)
}

/// Makes the foreign request for devices of a planned change.
async fn run_foreign_client(planned: &PlannedChange, foreign: &ForeignClient) {
    if let Some(request) = planned.foreign_request {
        sleep(request.delay).await;
        foreign.change_same_devices(planned, request.overlap).await;
    }
}

/// Collects the streams of all changes. Cuts those that do not end in time, which the checker reports.
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

/// Collects the observations of all clients and all results.
async fn collect_client_records(
    target: &mut UpstreamAddress,
    sandbox: &str,
    planned_changes: Vec<PlannedChange>,
    first_calls: HashMap<usize, FirstCall>,
    mut followed: HashMap<usize, WatchedChange>,
) -> (Vec<ClientRecord>, HashMap<String, Vec<proto::DeviceResult>>) {
    let mut client = connect(target).await;
    let mut client_records = Vec::new();
    for (number, planned) in planned_changes.into_iter().enumerate() {
        let change = get_by_key(&mut client, &planned.key).await.ok();
        let whole = match &change {
            Some(_) => reference(&mut client, until_caught_up(watch_key(&planned.key))).await,
            None => Recording::default(),
        };
        let WatchedChange { streams, until } = followed.remove(&number).expect("followed");
        client_records.push(ClientRecord {
            first_call: first_calls[&number],
            until,
            change,
            whole,
            streams,
            planned_change: planned,
        });
    }
    let mut results = HashMap::new();
    for executed in &Ledger::fetch(sandbox, true).await.changes {
        let found = stored_results(&mut client, &executed.request_id).await;
        results.insert(executed.request_id.clone(), found);
    }
    // A repeated call must send nothing. The ledger is read after these calls.
    let again = client_records.iter().filter_map(|client_record| {
        let change = client_record.change.as_ref()?;
        let would_send = change.state() == proto::ChangeState::NotSent;
        let mut client = client.clone();
        (!would_send).then_some(async move {
            client_record.planned_change.call(&mut client, None).await.is_ok()
        })
    });
    join_all(again).await;
    (client_records, results)
}
