//! A test whose gateway writes a planted text fails, wherever the text is.

use std::fs;

use tokio::task::JoinError;

use crate::support::{
    cli,
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    requests::{PERSONAL, deliver, esim_callback, parse_error},
    tokens::Issuer,
};

/// Returns the message of a panic.
fn message(error: JoinError) -> String {
    *error.into_panic().downcast::<String>().expect("a text")
}

#[tokio::test]
async fn a_planted_text_in_a_log_line_fails_the_test() {
    for text in ["planted-secret", PERSONAL[2], &Issuer::new("key").token("fleet")] {
        let directory = TestDir::new();
        // The error of the setting repeats its value.
        let setup = Setup::serve(UNREACHABLE_URL, &directory).set("grpc.listen", text);
        let failed = tokio::spawn(async move { setup.start_error().await }).await;
        let message = message(failed.expect_err("it fails"));
        assert!(message.contains("log: ") && message.contains("grpc.listen"), "{message}");
    }
}

#[tokio::test]
async fn a_planted_text_in_a_file_of_a_gateway_fails_the_test_when_the_gateway_ends() {
    for (ends, name) in [("kill", "kept"), ("terminate", "audit.log.0000000001"), ("drop", "kept")]
    {
        let (directory, elsewhere) = (TestDir::new(), TestDir::new());
        let audit_log = elsewhere.join("audit.log");
        let setup = Setup::serve(UNREACHABLE_URL, &directory).set("audit.output", "file");
        let mut gateway = setup.set("audit.file", &audit_log.to_string_lossy()).start().await;
        let written = if name == "kept" { directory.join(name) } else { elsewhere.join(name) };
        fs::write(&written, format!("\0{}\u{1}", PERSONAL[0])).unwrap();
        let ended = tokio::spawn(async move {
            match ends {
                "kill" => drop(gateway.kill().await),
                "terminate" => drop(gateway.terminate().await),
                _ => drop(gateway),
            }
        });
        let message = message(ended.await.expect_err("it fails"));
        assert!(message.contains(&*written.to_string_lossy()), "{ends}: {message}");
    }
}

#[tokio::test]
async fn a_file_that_a_setting_names_may_contain_a_secret_and_no_other() {
    let directory = TestDir::new();
    let password = directory.join("password");
    fs::write(&password, "planted-password").unwrap();
    let setup = Setup::serve(UNREACHABLE_URL, &directory).without("TSGW_THINGSPACE__UWS_PASSWORD");
    let setup = setup.set("thingspace.uws_password_file", &password.to_string_lossy());
    setup.start().await.kill().await;
    let mut gateway = setup.start().await;
    fs::copy(&password, directory.join("copy")).unwrap();
    let ended = tokio::spawn(async move { gateway.kill().await }).await;
    let message = message(ended.expect_err("it fails"));
    assert!(message.contains("copy") && message.lines().count() == 2, "{message}");
}

#[tokio::test]
async fn a_secret_of_the_settings_that_does_not_look_like_one_is_found() {
    let directory = TestDir::new();
    let setup = Setup::serve(UNREACHABLE_URL, &directory);
    let mut gateway =
        setup.env("TSGW_CALLBACKS__PATH_SECRET", "correct-horse-battery").start().await;
    fs::write(directory.join("kept"), "a correct-horse-battery").unwrap();
    let ended = tokio::spawn(async move { gateway.kill().await }).await;
    assert!(message(ended.expect_err("it fails")).contains("kept"));
}

#[tokio::test]
async fn a_planted_text_in_an_error_or_in_the_output_of_a_command_fails_the_test() {
    let status = tonic::Status::internal("planted-secret");
    let parsed = tokio::spawn(async move { parse_error(&status).reason }).await;
    assert!(message(parsed.expect_err("it fails")).contains("an error contains"));
    let arguments = ["config", "check", "--grpc.listen=planted-secret"];
    let run = tokio::spawn(async move { cli::run(&arguments, &[]).await }).await;
    assert!(message(run.expect_err("it fails")).contains("the output contains"));
}

#[tokio::test]
async fn a_gateway_of_a_test_logs_at_debug_level() {
    let directory = TestDir::new();
    let mut gateway = Setup::serve(UNREACHABLE_URL, &directory).start().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback("request", 1)).await;
    let log = gateway.kill().await;
    assert!(log.contains("\"level\":\"DEBUG\""), "{log}");
}
