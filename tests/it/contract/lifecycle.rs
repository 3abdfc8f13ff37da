//! Start and shutdown.

use std::{collections::HashMap, process::Stdio};

use thingspace_gateway::proto::{ChangeState, watch_request_response::Event};
use tonic::Code;

use super::{REQUEST, UNKNOWN_ID};
use crate::support::{
    env::TestEnv,
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    requests::{
        deliver, esim, esim_callback, make_change, parse_error, resume, summarize, until_caught_up,
        watch_change, watch_key, watch_request,
    },
    thingspace::{CallKind, FakeResponse},
};

#[tokio::test]
async fn sigterm_sends_reconnect_to_every_watch_waits_for_the_post_and_exits_with_0() {
    let mut env = TestEnv::start().await;
    let change = env.change_as(REQUEST, esim("key", [1])).await;
    let mut of_change = env.watch(watch_change(&change)).await;
    of_change.read_until("state ACCEPTED").await;
    let mut of_request = env.watch(watch_request(UNKNOWN_ID)).await;
    of_request.next().await;
    let mut held_call = env.thingspace.hold(CallKind::Change);
    let mut caller = env.client.clone();
    let call = tokio::spawn(async move { make_change(&mut caller, esim("held", [2])).await });
    held_call.arrived().await;

    env.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    let mut tokens = HashMap::new();
    for (name, watch) in [("change", of_change), ("request", of_request)] {
        let transcript = watch.read_to_end().await;
        let status = transcript.end.as_ref().unwrap_err();
        let expected = (Code::Unavailable, "RECONNECT", "NOW", None);
        assert_eq!(parse_error(status).summary(), expected, "{name}");
        let [message] = transcript.messages.as_slice() else {
            panic!("{name}: one message: {transcript:?}");
        };
        assert_eq!(summarize(message), "reconnect Drain", "{name}");
        let Some(Event::Reconnect(reconnect)) = &message.event else {
            panic!("{name}: reconnect");
        };
        assert!(reconnect.retry_after.is_some());
        tokens.insert(name, message.resume_token.clone());
    }
    // The shutdown waits for the POST in flight and for its call.
    held_call.release(FakeResponse::Healthy);
    let accepted = call.await.expect("the call");
    assert_eq!(accepted.state(), ChangeState::Accepted);
    assert_eq!(env.gateway.wait().await.code, Some(0));

    env.start_again().await;
    let url = env.gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let transcript = env.record(resume(&tokens["change"])).await;
    assert_eq!(
        transcript.summaries(),
        ["opened FINISHED", "result 0 SUCCEEDED", "finished FINISHED"]
    );
    let transcript = env.record(until_caught_up(resume(&tokens["request"]))).await;
    assert_eq!(transcript.summaries(), ["opened -", "bookmark"]);
    env.gateway.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(env.gateway.wait().await.code, Some(0));
}

#[tokio::test]
async fn a_second_signal_exits_at_once_and_the_change_is_outcome_unknown() {
    let mut env = TestEnv::start().await;
    let mut held_call = env.thingspace.hold(CallKind::Change);
    let mut caller = env.client.clone();
    let call = tokio::spawn(async move { caller.change_esim_plan(esim("cut", [1])).await });
    held_call.arrived().await;
    let mut watch = env.watch(watch_key("cut")).await;
    let token = watch.read_until("state DISPATCHED").await.pop().unwrap().resume_token;
    // A second gateway on this journal does not start.
    let setup = env.setup.clone().set("telemetry.log_filter", "info");
    let output = setup.command().output().await.expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");

    env.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    // The shutdown waits for the POST.
    watch.read_until("reconnect Drain").await;
    env.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(env.gateway.wait().await.code, Some(1));
    assert!(call.await.expect("the call").is_err());

    env.start_again().await;
    let transcript = env.record(until_caught_up(resume(&token))).await;
    assert_eq!(
        transcript.summaries(),
        ["opened OUTCOME_UNKNOWN", "state OUTCOME_UNKNOWN", "bookmark"]
    );
}

#[tokio::test]
async fn a_broken_setting_exits_with_78_and_one_line_that_repeats_no_secret() {
    let directory = TestDir::new();
    let good = Setup::serve(UNREACHABLE_URL, &directory);
    let file = directory.join("gateway.toml");
    std::fs::write(&file, "[grpc]\nlistne = \"127.0.0.1:0\"\n").expect("a file");
    let key = "TSGW_THINGSPACE__APP_KEY";
    for (what, setup, expected_parts, hides) in [
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
        ("a missing credential", good.clone().env(key, ""), &["thingspace.app_key"][..], "planted"),
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
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(78), "{what}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
        assert!(output.stdout.is_empty(), "{what}");
        for part in expected_parts {
            assert!(stderr.contains(part), "{what}: {stderr}");
        }
        assert!(!stderr.contains(hides), "{what}: {stderr}");
    }
}
