//! One run of a seed: a sandbox, gateways with faults, and a client for each change.

use std::{collections::HashMap, fs, sync::Arc};

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
    deployment::{
        Addresses, Deployment, Environment, GatewayAddresses, InjectedFault, Progress, inject_all,
        shift_clocks,
    },
    observations::Observations,
    planned_changes::{PlannedChange, plan_changes},
    proxy::Proxy,
    sandbox::{ForeignClient, PASSWORD, SandboxProcess},
};
use crate::{
    guarantees::Recording,
    support::{
        gateway::TestDir,
        history::reference,
        ledger::Ledger,
        report,
        requests::{
            ACCOUNT, get_by_key, stored_results, until_caught_up, watch_account, watch_key,
        },
        wait::{TEST_TIMEOUT, eventually},
    },
};

/// Number of concurrent clients.
const CLIENTS: usize = 12;

/// The changes and faults of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'p> {
    pub seed: u64,
    /// Number of changes.
    pub changes: usize,
    pub faults: &'p [InjectedFault],
    /// The rule that a build with the feature `failpoints` breaks.
    pub failpoint: Option<&'p str>,
}

/// Runs a plan. Returns the evidence, and the violations after the run.
pub async fn run<D: Deployment>(plan: Plan<'_>) -> (Evidence, Vec<String>) {
    let Plan { seed, .. } = plan;
    let directory = TestDir::new();
    let addresses = Arc::new(GatewayAddresses::default());
    let to_gateway = Proxy::start(addresses.callbacks.subscribe(), 0.05, seed).await;
    let sandbox = SandboxProcess::start(seed, to_gateway.address).await;
    let (_fixed, upstream) = watch::channel(vec![sandbox.address]);
    let to_sandbox = Proxy::start(upstream, 0.3, seed + 1).await;
    let password = directory.join("uws_password");
    fs::write(&password, PASSWORD).expect("a file");
    let planned_changes = plan_changes(seed, plan.changes);
    let progress = Progress::new(plan.changes);
    let environment = Environment {
        base_url: format!("http://{}/api", to_sandbox.address),
        password,
        addresses: Arc::clone(&addresses),
        progress: progress.clone(),
        foreign_client: sandbox.foreign_client(),
        failpoint: plan.failpoint.map(str::to_owned),
    };
    let mut deployment = D::start(environment).await;

    let over = watch::Sender::new(false);
    let account_over = watch::Sender::new(false);
    let following_account = {
        let (gateway, over) = (addresses.grpc.subscribe(), account_over.subscribe());
        tokio::spawn(async move { follow_account(&gateway, &over, seed).await })
    };
    let foreign_client = sandbox.foreign_client();
    let start = Instant::now();
    let calling = run_clients(&planned_changes, &addresses, &progress, &over, &foreign_client);
    let shifting = shift_clocks(deployment.disks(), &progress, seed);
    let injecting = inject_all(&mut deployment, plan.faults, &progress, seed);
    let ((first_calls, following), fault_intervals, ()) =
        tokio::join!(calling, injecting, shifting);
    report(format_args!(
        "seed {seed}: {} changes and all faults in {:.0?}",
        plan.changes,
        start.elapsed()
    ));

    let followed = collect_watches(following, &over).await;
    let ledger = format!("http://{}", sandbox.address);
    eventually("all devices have their outcome", async || {
        Ledger::fetch(&ledger, false).await.devices_pending == 0
    })
    .await;
    let account_streams = collect_account_watches(following_account, &account_over).await;
    let mut target = addresses.grpc.subscribe();
    let observations =
        collect_observations(&mut target, &ledger, planned_changes, first_calls, followed).await;
    let whole = reference(&mut connect(&mut target).await, watch_account(ACCOUNT)).await;
    let account = AccountRecord { clients: account_streams, whole };
    let violations = deployment.finish(&observations, seed).await;
    let evidence = Evidence {
        observations,
        account,
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
    progress: &Progress,
    over: &watch::Sender<bool>,
    foreign: &ForeignClient,
) -> (HashMap<usize, FirstCall>, JoinSet<(usize, WatchedChange)>) {
    let mut following = JoinSet::new();
    let mut first_calls = HashMap::new();
    let mut calls = stream::iter(planned_changes.iter().enumerate())
        .map(async |(number, planned)| {
            let first_call = run_first_call(planned, addresses.grpc.subscribe(), progress);
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
async fn collect_observations(
    target: &mut Addresses,
    sandbox: &str,
    planned_changes: Vec<PlannedChange>,
    first_calls: HashMap<usize, FirstCall>,
    mut followed: HashMap<usize, WatchedChange>,
) -> Observations {
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
    Observations { client_records, results }
}
