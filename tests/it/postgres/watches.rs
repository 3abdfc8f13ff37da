//! Any replica serves any watch, and honours the tokens of all others.

use thingspace_gateway::proto;

use super::cluster::Cluster;
use crate::{
    guarantees::{self, History},
    support::{
        history::{WatchRecorder, reference},
        requests::{
            ACCOUNT, Watch, deliver, esim, esim_callback, resume, summarize, watch_account,
            watch_change, watch_key, watch_request,
        },
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_killed_replica_resumes_at_another_one_with_exactly_the_next_event() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..3 {
        let key = format!("round-{round}");
        let numbers: Vec<usize> = (round * 10..round * 10 + 6).collect();
        let [a, b, c] = &mut cluster.replicas[..] else { panic!("three replicas") };
        let change = a.change(esim(&key, numbers.iter().copied())).await;
        let request = &change.request_ids[0];
        let mut streams = Vec::new();
        let mut watch = WatchRecorder::open(&mut c.client, watch_change(&change)).await;
        for number in &numbers[..3] {
            deliver(&b.esim_url(), &esim_callback(request, *number)).await;
        }
        // The token is that of the last event, or of an earlier one.
        let mut results = 0;
        while results < 3 - round {
            let event = watch.next().await.expect("an event");
            results +=
                usize::from(matches!(event, proto::watch_request_response::Event::DeviceResult(_)));
        }
        let token = watch.token();
        streams.push(watch.cut());
        c.gateway.kill().await;
        for number in &numbers[3..5] {
            deliver(&b.esim_url(), &esim_callback(request, *number)).await;
        }

        let mut watch = WatchRecorder::open(&mut a.client, resume(&token)).await;
        deliver(&b.esim_url(), &esim_callback(request, numbers[5])).await;
        while watch.next().await.is_some() {}
        let resumed = watch.cut();
        assert!(resumed.ends_with_finished(), "{resumed:?}");
        streams.push(resumed);
        let whole = reference(&mut b.client, watch_change(&change)).await;
        let history = History::new(&whole.messages, &streams);
        guarantees::check(&history).unwrap();
        c.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_at_another_replica_finds_each_change_as_soon_as_its_call_has_returned() {
    let cluster = Cluster::start(2).await;
    let [a, c] = &cluster.replicas[..] else { panic!("two replicas") };
    for number in 0..200 {
        let key = format!("key-{number}");
        let change = a.change(esim(&key, [number])).await;
        let request = match number % 3 {
            0 => watch_change(&change),
            1 => watch_key(&key),
            _ => watch_request(&change.request_ids[0]),
        };
        let first = c.watch(request).await.next().await;
        assert_eq!(summarize(&first), "opened ACCEPTED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_at_all_replicas_deliver_the_events_of_all_replicas_in_the_same_order() {
    let cluster = Cluster::start(3).await;
    let change = cluster.replicas[0].change(esim("key", 0..30)).await;
    let request = &change.request_ids[0];
    let mut watches = Vec::new();
    for replica in &cluster.replicas {
        let mut client = replica.client.clone();
        watches.push(WatchRecorder::open(&mut client, watch_change(&change)).await);
        // One that ends with the last event of the change is enough to read the other to there.
        watches.push(WatchRecorder::open(&mut client, watch_account(ACCOUNT)).await);
    }
    let deliver = |number: usize| {
        let url = cluster.replicas[number % 3].esim_url();
        async move { deliver(&url, &esim_callback(request, number)).await }
    };
    futures_util::future::join_all((0..30).map(deliver)).await;
    let mut client = cluster.replicas[1].client.clone();
    let mut account = Vec::new();
    let mut of_change = Vec::new();
    for (index, mut watch) in watches.into_iter().enumerate() {
        if index % 2 == 0 {
            while watch.next().await.is_some() {}
            of_change.push(watch.cut());
        } else {
            // QUEUED and DISPATCHED may be before it.
            let whole = reference(&mut client, watch_account(ACCOUNT)).await;
            let last = whole.messages.last().expect("a bookmark").token.clone();
            while watch.token() != last {
                watch.next().await.expect("an event");
            }
            account.push(watch.cut());
        }
    }
    let whole = reference(&mut client, watch_change(&change)).await;
    guarantees::check(&History::new(&whole.messages, &of_change)).unwrap();
    let whole = reference(&mut client, watch_account(ACCOUNT)).await;
    guarantees::check(&History::new(&whole.messages, &account)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_without_notifications_of_the_database() {
    let cluster = Cluster::start(2).await;
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    let change = a.change(esim("key", [1, 2])).await;
    let mut watch: Watch = b.watch(watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;
    // The listening connection is the one whose last statement is LISTEN.
    let ended = cluster
        .sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE query LIKE 'LISTEN%' AND application_name = 'thingspace-gateway'",
        )
        .await;
    assert_eq!(ended, "2");
    for number in [1, 2] {
        deliver(&a.esim_url(), &esim_callback(&change.request_ids[0], number)).await;
    }
    watch.read_until("finished FINISHED").await;
}
