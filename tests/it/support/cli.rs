//! Runs a command of the binary to its end.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::{secrets::assert_no_planted_text, wait::in_time};

/// Exit code and output of a command.
#[derive(Debug)]
pub struct CliOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary with these arguments and no other environment than `env`. Fails if it prints a planted text.
pub async fn run(arguments: &[&str], env: &[(&str, &str)]) -> CliOutput {
    let output = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"))
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output();
    let output = in_time(output).await.expect("the binary starts");
    assert_no_planted_text("the output", &[&*output.stdout, &*output.stderr].concat());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    CliOutput {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs `journal check` with these settings. Returns its findings, or its error.
pub async fn check_journal(settings: &[&str]) -> Vec<String> {
    let checked = run(&[&["journal", "check"], settings].concat(), &[]).await;
    match checked.code {
        Some(0) => Vec::new(),
        _ => vec![format!("journal check: {}", checked.stderr)],
    }
}

impl CliOutput {
    /// Standard output followed by standard error.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The last line of standard output, parsed.
    pub fn last_line_json(&self) -> Value {
        let line = self.stdout.lines().last().expect("a line");
        serde_json::from_str(line).expect("JSON")
    }
}
