use tokio::task::spawn_blocking;

use super::*;
use crate::{
    journal::{
        Origin,
        postgres::{
            accept_loss, open,
            replica::Replica,
            tests::{callback, create_database},
            url::ConnectionSettings,
        },
        sql::{Identity, tables::meta},
    },
    telemetry::Instruments,
};

#[tokio::test(flavor = "multi_thread")]
async fn commits_between_the_adoption_of_an_epoch_and_the_next_read_of_postgres_are_announced() {
    let options = create_database().await;
    let before = open(&options).await.unwrap();
    before.store_callback(callback("seen")).await.unwrap();
    let (epoch, seen) = (before.epoch(), 1);
    before.close().await;
    let url = options.url.clone();
    spawn_blocking(move || accept_loss(&url, None, &[])).await.unwrap().unwrap();
    let other = open(&options).await.unwrap();
    let new = Head { epoch: other.epoch(), last_position: seen };

    let connector = Connector::new(ConnectionSettings::parse(&options.url, None).unwrap()).unwrap();
    let identity = Arc::new(Identity::new(epoch, Origin::sandbox(), &[]));
    let readers = Arc::new(Readers::new(connector.clone(), 1).unwrap());
    let instance = readers.run(|db| meta::load::<Vec<u8>>(db, meta::INSTANCE)).await.unwrap();
    let replica = Arc::new(Replica::new("a".into()));
    replica.set_instance(&instance.unwrap());
    let continuity = Continuity::new(identity, replica, seen);
    let mut follower = Follower {
        readers,
        connector,
        own_commits: Arc::default(),
        continuity: Arc::new(continuity),
        listeners: Arc::new(WriterState::new(Counts::default(), Instruments::noop())),
        seen,
        epoch,
    };
    // The writer adopts the epoch and notifies the listeners. Then another replica commits.
    follower.continuity.adopt(epoch, new);
    assert!(follower.continuity.take_new_epoch());
    other.store_callback(callback("missed")).await.unwrap();
    follower.notify_of_new_commits(true).await.unwrap();
    assert!(follower.continuity.take_new_epoch());

    // Later commits of the epoch are announced as usual.
    other.store_callback(callback("later")).await.unwrap();
    follower.notify_of_new_commits(true).await.unwrap();
    assert!(!follower.continuity.take_new_epoch());
    assert_eq!(follower.seen, other.kept_range().await.unwrap().last);
}
