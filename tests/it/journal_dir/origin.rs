//! A journal answers for the ThingSpace that its changes were sent to, and for no other.

use super::{assert_journal_complete, fill_journal, setup};
use crate::support::{
    gateway::{Setup, TestDir},
    thingspace::FakeThingSpace,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_refused_for_another_thingspace_than_its_own() {
    let directory = TestDir::new();
    let (thingspace, other) = (FakeThingSpace::start().await, FakeThingSpace::start().await);
    let own = setup(&thingspace, &directory);
    let gateway = own.start().await;
    let made = fill_journal(&gateway).await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    let elsewhere = own.clone().set("thingspace.base_url", &other.base_url());
    let journal = super::journal(&directory);
    let sandbox = Setup::sandbox().set("journal.dir", journal.to_str().expect("text"));
    for refused in [elsewhere, sandbox] {
        let (code, log) = refused.refused().await;
        assert_eq!(code, Some(78), "{log}");
        let recorded = thingspace.base_url().replace("/api", "");
        assert!(
            log.contains(&recorded) && log.contains("journal.dir"),
            "{log}"
        );
    }
    assert_eq!(other.posts(), 0);

    // The path is not part of it, nor is how the host is spelled.
    let spelled = format!("{}/", thingspace.base_url());
    for base_url in [spelled, thingspace.base_url().replace("http:", "HTTP:")] {
        let same = own.clone().set("thingspace.base_url", &base_url);
        let gateway = same.start().await;
        assert_journal_complete(&mut gateway.client().await, &made, &thingspace).await;
        assert_eq!(gateway.terminate().await.0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_journal_works_with_any_sandbox_port_and_never_with_thingspace() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let journal = super::journal(&directory);
    let sandbox = Setup::sandbox().set("journal.dir", journal.to_str().expect("text"));
    for _ in 0..2 {
        let gateway = sandbox.start().await;
        assert_eq!(gateway.terminate().await.0, Some(0));
    }
    let (code, log) = setup(&thingspace, &directory).refused().await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("sandbox"), "{log}");
    assert_eq!(thingspace.posts(), 0);
}
