//! How a gateway starts and ends.

use std::{collections::HashMap, process::Stdio};

use thingspace_gateway::proto::{ChangeState, watch_request_response::Event};
use tonic::Code;

use super::{NOBODY, REQUEST};
use crate::support::{
    gateway::{Directory, Setup},
    requests::{
        Story, Watch, change_esim, deliver, esim, esim_callback, resume, short, stored, told,
        watch_change, watch_key, watch_request,
    },
    thingspace::{Answer, Call, ThingSpace},
};

#[tokio::test]
async fn sigterm_tells_every_watch_to_reconnect_waits_for_a_post_and_exits_with_0() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.answer(Call::Change, Answer::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1])).await;
    let mut of_change = Watch::open(&mut client, watch_change(&change)).await;
    of_change.up_to("state ACCEPTED").await;
    let mut of_request = Watch::open(&mut client, watch_request(NOBODY)).await;
    of_request.next().await;
    let mut held = thingspace.hold(Call::Change);
    let mut caller = client.clone();
    let call = tokio::spawn(async move { change_esim(&mut caller, esim("held", [2])).await });
    held.arrived().await;

    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    let mut tokens = HashMap::new();
    for (name, watch) in [("change", of_change), ("request", of_request)] {
        let story = watch.rest().await;
        let status = story.end.as_ref().unwrap_err();
        let expected = (Code::Unavailable, "RECONNECT", "NOW", None);
        assert_eq!(told(status).rule(), expected, "{name}");
        let [message] = story.messages.as_slice() else {
            panic!("{name}: one message: {story:?}");
        };
        assert_eq!(short(message), "reconnect Drain", "{name}");
        let Some(Event::Reconnect(reconnect)) = &message.event else {
            panic!("{name}: reconnect");
        };
        assert!(reconnect.retry_after.is_some());
        tokens.insert(name, message.resume_token.clone());
    }
    // The POST that is under way is waited for, and so is its call.
    held.release(Answer::Proper);
    let accepted = call.await.expect("the call");
    assert_eq!(accepted.state(), ChangeState::Accepted);
    assert_eq!(gateway.wait().await, Some(0));

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let story = Story::of(&mut client, resume(&tokens["change"])).await;
    assert_eq!(
        story.short(),
        ["opened FINISHED", "result 0 SUCCEEDED", "finished FINISHED"]
    );
    let story = Story::of(&mut client, stored(resume(&tokens["request"]))).await;
    assert_eq!(story.short(), ["opened -", "bookmark"]);
    gateway.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(gateway.wait().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_leaves_no_doubt_about_what_is_known() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let mut held = thingspace.hold(Call::Change);
    let mut caller = client.clone();
    let call = tokio::spawn(async move { caller.change_esim_plan(esim("cut", [1])).await });
    held.arrived().await;
    let mut watch = Watch::open(&mut client, watch_key("cut")).await;
    let token = watch
        .up_to("state DISPATCHED")
        .await
        .pop()
        .unwrap()
        .resume_token;
    // A second gateway on this journal does not start.
    let output = setup.command().output().await.expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(
        (output.status.code(), said.lines().count()),
        (Some(1), 1),
        "{said}"
    );

    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    // Now it drains, and waits for the POST.
    watch.up_to("reconnect Drain").await;
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(gateway.wait().await, Some(1));
    assert!(call.await.expect("the call").is_err());

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let story = Story::of(&mut client, stored(resume(&token))).await;
    assert_eq!(
        story.short(),
        [
            "opened OUTCOME_UNKNOWN",
            "state OUTCOME_UNKNOWN",
            "bookmark"
        ]
    );
}

#[tokio::test]
async fn a_broken_setting_exits_with_78_and_one_line_that_repeats_no_secret() {
    let directory = Directory::new();
    let good = Setup::serve("http://127.0.0.1:9/api", &directory);
    let file = directory.join("gateway.toml");
    std::fs::write(&file, "[grpc]\nlistne = \"127.0.0.1:0\"\n").expect("a file");
    let key = "TSGW_THINGSPACE__APP_KEY";
    for (what, setup, says, hides) in [
        (
            "a bad address",
            good.clone().set("grpc.listen", "nowhere:x"),
            &["grpc.listen", "nowhere:x"][..],
            "planted",
        ),
        (
            "an unknown key in the file",
            good.clone().set("config", &file.to_string_lossy()),
            &["grpc.listne", "grpc.listen"][..],
            "planted",
        ),
        (
            "a secret that is too short",
            good.clone().env("TSGW_CALLBACKS__PATH_SECRET", "tooshort"),
            &["callbacks.path_secret"][..],
            "tooshort",
        ),
        (
            "a missing credential",
            good.clone().env(key, ""),
            &["thingspace.app_key"][..],
            "planted",
        ),
        (
            "an open listener",
            good.clone().set("callbacks.listen", "0.0.0.0:0"),
            &["callbacks."][..],
            "planted",
        ),
    ] {
        let mut command = setup.command();
        command.stdin(Stdio::null());
        let output = command.output().await.expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(78), "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(output.stdout.is_empty(), "{what}");
        for part in says {
            assert!(said.contains(part), "{what}: {said}");
        }
        assert!(!said.contains(hides), "{what}: {said}");
    }
}
