//! Commands to a running gateway, by its admin socket.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use super::write_line;
use crate::config::{self, Config, Sources};

/// How long an answer may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCommand {
    /// What is in the quarantine, a line each.
    List,
    /// One entry, body included.
    Show(u64),
    /// Judge one entry anew.
    Replay(u64),
    /// Judge all entries anew.
    ReplayAll,
    /// Forget one entry.
    Drop(u64),
    /// Let ThingSpace's credentials be tried again.
    ResetLockout,
}

/// Gives an order and prints what came of it as JSON. Exit code 0 when it was done, 1 when not, 78
/// when the settings cannot be read.
///
/// # Errors
///
/// What the writers say, and what the runtime lacks.
pub fn run(
    command: &AdminCommand,
    sources: &Sources,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let config = match Config::load(sources) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            write_line(err, &error.to_string())?;
            return Ok(config::EXIT_CODE);
        }
    };
    let socket = config.admin_socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done =
        runtime.block_on(async { timeout(RESPONSE_TIMEOUT, execute(&socket, command, out)).await });
    match done {
        Ok(Ok(())) => Ok(0),
        Ok(Err(CommandError::Output(error))) => Err(error),
        Ok(Err(CommandError::Request(why))) => {
            write_line(err, &why)?;
            Ok(1)
        }
        Err(_elapsed) => {
            write_line(
                err,
                &format!(
                    "{}: no answer within {RESPONSE_TIMEOUT:?}",
                    socket.display()
                ),
            )?;
            Ok(1)
        }
    }
}

enum CommandError {
    /// One line that says why.
    Request(String),
    Output(io::Error),
}

async fn execute(
    socket: &Path,
    command: &AdminCommand,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if *command != AdminCommand::List {
        let (method, path) = command.http_endpoint();
        let answer = send_request(socket, method, &path).await?;
        return write_line(out, &answer.to_string()).map_err(CommandError::Output);
    }
    let mut after = 0;
    loop {
        let path = format!("/quarantine/after/{after}");
        let answer = send_request(socket, Method::GET, &path).await?;
        let entries = answer.get("quarantine").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        for entry in entries {
            write_line(out, &entry.to_string()).map_err(CommandError::Output)?;
        }
        let last = entries.last().and_then(|entry| entry.get("id")?.as_u64());
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

/// One request, and the JSON of its answer.
async fn send_request(socket: &Path, method: Method, path: &str) -> Result<Value, CommandError> {
    let request_error = |why: String| CommandError::Request(format!("{}: {why}", socket.display()));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| request_error(format!("{error}: is the gateway running here?")))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| request_error(error.to_string()))?;
    let serving = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .body(Empty::<Bytes>::new())
        .map_err(|error| request_error(error.to_string()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| request_error(error.to_string()))?;
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body
        .map_err(|error| request_error(error.to_string()))?
        .to_bytes();
    serving.abort();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(answer);
    }
    let word = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    Err(CommandError::Request(format!(
        "{}: {}",
        word("error"),
        word("message")
    )))
}

// === impl Order ===

impl AdminCommand {
    fn http_endpoint(&self) -> (Method, String) {
        match self {
            Self::List => (Method::GET, "/quarantine".into()),
            Self::Show(id) => (Method::GET, format!("/quarantine/{id}")),
            Self::Replay(id) => (Method::POST, format!("/quarantine/{id}/replay")),
            Self::ReplayAll => (Method::POST, "/quarantine/replay".into()),
            Self::Drop(id) => (Method::DELETE, format!("/quarantine/{id}")),
            Self::ResetLockout => (Method::POST, "/thingspace/reset-lockout".into()),
        }
    }
}
