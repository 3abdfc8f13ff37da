//! Operators inspect and control a running gateway with commands, through `OperatorService` on its Unix socket.

use serde_json::{Value, json};
use tonic::Code;

use crate::support::{
    cli::{self, CliOutput},
    env::TestEnv,
    requests::{ACCOUNT, esim, parse_error},
};

/// Runs a command beside the running gateway.
async fn operate(env: &TestEnv, arguments: &[&str]) -> CliOutput {
    let socket = env.directory.join("admin.sock");
    cli::run(arguments, &[("TSGW_ADMIN__SOCKET", socket.to_str().unwrap())]).await
}

async fn json_of(env: &TestEnv, arguments: &[&str]) -> Value {
    let output = operate(env, arguments).await;
    assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_paused_account_sends_nothing_until_it_is_resumed_also_after_a_restart() {
    let mut env = TestEnv::start().await;
    let sent = env.change(esim("sent", 0..1)).await;
    let paused = ["changes", "pause", "--account", ACCOUNT, "--reason", "planned work"];
    let pause = json_of(&env, &paused).await;
    assert_eq!(
        (&pause["account"], &pause["reason"], &pause["paused_by"]),
        (&json!(ACCOUNT), &json!("planned work"), &json!("local"))
    );
    for round in ["before the restart", "after it"] {
        let status = env.change_error(esim("rejected", 1..2)).await;
        let expected = (Code::Unavailable, "CHANGES_PAUSED", "LATER", Some("NO"));
        assert_eq!(parse_error(&status).summary(), expected, "{round}: {status:?}");
        // A repeated call of a change that was sent gets that change.
        let again = env.change(esim("sent", 0..1)).await;
        assert_eq!(again.change_id, sent.change_id, "{round}");
        let shown = json_of(&env, &["status"]).await;
        assert_eq!(shown["pauses"], json!([pause]), "{round}");
        assert_eq!(shown["changes"]["ACCEPTED"], 1, "{round}: {shown}");
        assert_eq!((&shown["serving"], &shown["leader"]), (&json!(true), &json!(true)));
        assert_eq!(shown["login"]["locked_out"], false, "{shown}");
        assert_eq!(shown["quarantine"], json!({"unreviewed": 0, "reviewed": 0, "bytes": 0}));
        if round == "before the restart" {
            env.restart().await;
        }
    }
    let all = json_of(&env, &["changes", "resume"]).await;
    assert_eq!(all, json!({"resumed": false}), "the pause of an account is another one");
    let resumed = json_of(&env, &["changes", "resume", "--account", ACCOUNT]).await;
    assert_eq!(resumed, json!({"resumed": true}));
    env.change(esim("rejected", 1..2)).await;
    assert_eq!(json_of(&env, &["status"]).await["pauses"], json!([]));
}

#[tokio::test]
async fn the_log_filter_of_a_running_gateway_changes_and_a_wrong_one_is_refused() {
    let mut env = TestEnv::start_with(|setup| setup.set("telemetry.log_filter", "info")).await;
    let wrong = operate(&env, &["log", "set", "no=such=level"]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("FIELD_INVALID: filter is not"), "{wrong:?}");
    assert_eq!(json_of(&env, &["status"]).await["log_filter"], "info");

    let set = json_of(&env, &["log", "set", "warn", "--for", "1h"]).await;
    assert_eq!(set, json!({"filter": "warn"}));
    let shown = json_of(&env, &["status"]).await;
    assert!(shown["log_filter_end_time_us"].is_i64(), "{shown}");
    // Logs a line of level INFO: not in the log, and then in it.
    let replay = ["quarantine", "replay", "--all"];
    assert_eq!(json_of(&env, &replay).await, json!({"stored": 0, "still_unusable": 0}));
    assert_eq!(json_of(&env, &["log", "reset"]).await, json!({"filter": "info"}));
    assert_eq!(json_of(&env, &["status"]).await["log_filter_end_time_us"], Value::Null);
    json_of(&env, &replay).await;
    let log = env.gateway.kill().await;
    assert_eq!(log.matches("operator replayed").count(), 1, "{log}");
}

#[tokio::test]
async fn a_command_without_a_gateway_says_what_to_do() {
    let output = cli::run(&["status"], &[("TSGW_ADMIN__SOCKET", "/nonexistent/admin.sock")]).await;
    assert_eq!(output.code, Some(1));
    let expected = "admin.socket /nonexistent/admin.sock: No such file or directory (os error 2); \
                    is the gateway running on this machine?";
    assert_eq!(output.stderr.trim(), expected);
}
