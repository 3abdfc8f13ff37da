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
    clients::{Asked, connect},
    directory::{After, leap_meanwhile},
    judge::{Evidence, Told},
    ledger::Ledger,
    orders::{Order, orders},
    proxy::{Proxy, Target},
    sandbox::{PASSWORD, Sandbox, Stranger},
    troubles::{Places, Scene},
};
use crate::{
    guarantees::Recording,
    support::{
        disk::Disk,
        gateway::{Client, Directory, PATIENCE, Setup},
        history::reference,
        requests::{Watch, get_by_key, stored, watch_key, watch_request},
    },
};

/// Calls at a time.
const CLIENTS: usize = 12;

/// What is known of an order when its watch has ended.
struct Followed {
    streams: Vec<Recording>,
    until: Instant,
}

/// Runs a seed. `broken` names the rule that the gateway breaks on purpose, in a build that can.
/// Answers with what was seen, and with what is wrong with what came after it.
pub async fn run(seed: u64, broken: Option<&str>) -> (Evidence, Vec<String>) {
    let directory = Directory::new();
    let places = Places::new();
    let to_gateway = Proxy::start(places.callbacks.subscribe(), 0.05, seed).await;
    let sandbox = Sandbox::start(seed, to_gateway.address).await;
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
    let disk = Disk::of(&directory);
    setup = disk.under(setup);
    if let Some(rule) = broken {
        setup = setup.env("TSGW_BROKEN", rule);
    }
    let gateway = setup.start().await;
    places.are(Some(&gateway));

    let orders = orders(seed);
    let started = watch::Sender::new(0);
    let over = watch::Sender::new(false);
    let scene = Scene {
        setup: &setup,
        places: &places,
        disk: &disk,
        password,
        stranger: sandbox.stranger(),
    };
    let asking = ask(&orders, &places, &started, &over, &scene.stranger);
    let playing = scene.play(gateway, started.subscribe(), seed);
    let leaping = leap_meanwhile(&disk, started.subscribe(), seed);
    let all = timeout(3 * PATIENCE, async {
        tokio::join!(asking, playing, leaping)
    });
    let ((asked, following), (gateway, befallen), ()) =
        all.await.expect("every client knows in time");

    let followed = ended(following, &over).await;
    let ledger = format!("http://{}", sandbox.address);
    let all_told = async { while Ledger::read(&ledger, false).await.devices_pending > 0 {} };
    timeout(PATIENCE, all_told)
        .await
        .expect("callbacks come to an end");
    let mut target = places.grpc.subscribe();
    let (told, results) = examine(&mut target, &ledger, orders, asked, followed).await;
    let after = After {
        setup: &setup,
        disk: &disk,
        directory: &directory,
        told: &told,
        results: &results,
    };
    let after = after.run(gateway, seed).await;
    let evidence = Evidence {
        told,
        results,
        ledger: Ledger::read(&ledger, true).await,
        befallen,
        cuts: to_sandbox.cuts(),
        callback_cuts: to_gateway.cuts(),
    };
    (evidence, after)
}

/// Carries out all orders, some at a time; each is watched once it has been asked for.
async fn ask(
    orders: &[Order],
    places: &Places,
    started: &watch::Sender<usize>,
    over: &watch::Sender<bool>,
    stranger: &Stranger,
) -> (HashMap<usize, Asked>, JoinSet<(usize, Followed)>) {
    let mut following = JoinSet::new();
    let mut all_asked = HashMap::new();
    let mut asking = stream::iter(orders.iter().enumerate())
        .map(async |(number, order)| {
            let asked = order.carry_out(places.grpc.subscribe(), started);
            (number, tokio::join!(asked, meddle(order, stranger)).0)
        })
        .buffer_unordered(CLIENTS);
    while let Some((number, asked)) = asking.next().await {
        all_asked.insert(number, asked);
        let order = orders[number].clone();
        let (gateway, over) = (places.grpc.subscribe(), over.subscribe());
        following.spawn(async move {
            let streams = order.follow(gateway, over).await;
            let until = Instant::now();
            (number, Followed { streams, until })
        });
    }
    drop(asking);
    (all_asked, following)
}

/// Somebody else changes an order's devices, somewhere within its time.
async fn meddle(order: &Order, stranger: &Stranger) {
    if let Some((after, overlap)) = order.stranger {
        sleep(after).await;
        stranger.meddle(order, overlap).await;
    }
}

/// The streams of every change. Those that do not end by themselves are cut, for the judge to see.
async fn ended(
    mut following: JoinSet<(usize, Followed)>,
    over: &watch::Sender<bool>,
) -> HashMap<usize, Followed> {
    let mut all = HashMap::new();
    let in_time = timeout(PATIENCE, async {
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
async fn examine(
    target: &mut Target,
    sandbox: &str,
    orders: Vec<Order>,
    asked: HashMap<usize, Asked>,
    mut followed: HashMap<usize, Followed>,
) -> (Vec<Told>, HashMap<String, Vec<proto::DeviceResult>>) {
    let mut client = connect(target).await;
    let mut told = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let change = get_by_key(&mut client, &order.key).await.ok();
        let whole = match &change {
            Some(_) => reference(&mut client, stored(watch_key(&order.key))).await,
            None => Recording::default(),
        };
        let Followed { streams, until } = followed.remove(&number).expect("followed");
        told.push(Told {
            asked: asked[&number],
            until,
            change,
            whole,
            streams,
            order,
        });
    }
    let mut results = HashMap::new();
    for executed in &Ledger::read(sandbox, true).await.changes {
        let found = results_of(&mut client, &executed.request_id).await;
        results.insert(executed.request_id.clone(), found);
    }
    // Whoever asks again by the same key is answered, and nothing is sent: the ledger is read after this.
    let again = told.iter().filter_map(|told| {
        let change = told.change.as_ref()?;
        let sends = change.state() == proto::ChangeState::NotSent;
        let mut client = client.clone();
        (!sends).then_some(async move { told.order.call(&mut client, None).await.is_ok() })
    });
    join_all(again).await;
    (told, results)
}

pub async fn results_of(client: &mut Client, request_id: &str) -> Vec<proto::DeviceResult> {
    let request = proto::WatchRequestRequest {
        include_raw: true,
        ..stored(watch_request(request_id))
    };
    match Watch::try_open(client, request).await {
        Ok(watch) => watch.rest().await.results(),
        // Nothing of it is known.
        Err(_) => Vec::new(),
    }
}
