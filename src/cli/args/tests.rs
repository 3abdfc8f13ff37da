use clap::CommandFactory;

use super::*;
use crate::cli::sandbox::SandboxSubcommand;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn settings_are_flags_spelled_as_their_keys() {
    let line = "gateway serve --sandbox --callbacks.insecure --grpc.listen 127.0.0.1:7";
    let Ok(Command::Serve(command)) = parse(line) else {
        panic!("not parsed: {line}");
    };
    let config = command.settings.load().unwrap().config;
    assert!(command.sandbox && config.callbacks.insecure);
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7");
}

#[test]
fn a_sandbox_takes_its_settings_or_lists_its_scenarios() {
    let line = "gateway sandbox --sandbox.seed 7";
    let Ok(Command::Sandbox(command)) = parse(line) else {
        panic!("not parsed: {line}");
    };
    assert_eq!(command.settings.load().unwrap().config.sandbox.seed, 7);
    assert!(command.command.is_none());
    for (line, as_json) in
        [("gateway sandbox scenarios", false), ("gateway sandbox scenarios --json", true)]
    {
        let Ok(Command::Sandbox(command)) = parse(line) else {
            panic!("not parsed: {line}");
        };
        let Some(SandboxSubcommand::Scenarios { json }) = command.command else {
            panic!("not parsed: {line}");
        };
        assert_eq!(json, as_json);
    }
    assert!(parse("gateway sandbox --sandbox.seed 7 scenarios").is_err());
}

#[test]
fn a_replay_needs_one_id_or_all() {
    for line in ["replay 7", "replay --all", "show 7", "drop 7", "list"] {
        assert!(parse(&format!("gateway quarantine {line}")).is_ok(), "{line}");
    }
    for line in ["replay", "replay 7 --all", "replay 0", "show", "drop"] {
        assert!(parse(&format!("gateway quarantine {line}")).is_err(), "{line}");
    }
}

#[test]
fn a_secret_is_no_flag_and_is_not_repeated() {
    for line in
        ["gateway serve --callbacks.password=hush", "gateway serve --callbacks.password hush"]
    {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains("--callbacks.password_file"), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
}
