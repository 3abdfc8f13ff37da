//! A journal works only with the ThingSpace that its changes were sent to.

use super::{assert_journal_complete, fill_journal, set_journal, start};
use crate::support::{
    gateway::{GatewayExit, Setup, TestDir},
    thingspace::FakeThingSpace,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_rejected_for_another_thingspace() {
    let mut env = start().await;
    let other = FakeThingSpace::start().await;
    let changes = fill_journal(&env).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    let elsewhere = env.setup.clone().set("thingspace.base_url", &other.base_url());
    let sandbox = set_journal(Setup::sandbox(), &env.directory);
    for setup in [elsewhere, sandbox] {
        let GatewayExit { code, log } = setup.start_error().await;
        assert_eq!(code, Some(78), "{log}");
        let recorded = env.thingspace.base_url().replace("/api", "");
        assert!(log.contains(&recorded) && log.contains("journal.dir"), "{log}");
    }
    assert_eq!(other.posts(), 0);

    // The origin has no path, and its case does not matter.
    let base_url = env.thingspace.base_url();
    for base_url in [format!("{base_url}/"), base_url.replace("http:", "HTTP:")] {
        env.setup = env.setup.clone().set("thingspace.base_url", &base_url);
        env.start_again().await;
        assert_journal_complete(&env, &changes).await;
        assert_eq!(env.gateway.terminate().await.code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_journal_works_with_any_sandbox_port_and_never_with_thingspace() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let sandbox = set_journal(Setup::sandbox(), &directory);
    for _ in 0..2 {
        let mut gateway = sandbox.start().await;
        assert_eq!(gateway.terminate().await.code, Some(0));
    }
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let GatewayExit { code, log } = set_journal(setup, &directory).start_error().await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("sandbox"), "{log}");
    assert_eq!(thingspace.posts(), 0);
}
