//! `serve` and `sandbox`: run until a signal.

use std::{
    future::Future,
    io::{self, Write},
};

use thingspace_sandbox::Sandbox;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{config::load_and_check, write_line};
use crate::{
    app::{App, sandbox_settings},
    config::{self, Config, Mode, Sources},
    telemetry::Telemetry,
};

/// The exit code of a start that failed, or of an end that was forced.
const EXIT_FAILURE: u8 = 1;

/// A start that failed.
struct ExitError {
    code: u8,
    why: String,
}

impl ExitError {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "given to map_err, which hands the error over"
    )]
    fn from_error(why: impl ToString) -> Self {
        Self {
            code: EXIT_FAILURE,
            why: why.to_string(),
        }
    }
}

/// Runs the gateway until SIGTERM or SIGINT, then drains: exit code 0. A second
/// signal ends it at once: exit code 1. Settings that will not do, and a
/// journal that is damaged or of another ThingSpace: 78; any other start that
/// fails: 1; each with one line on `err`.
///
/// # Errors
///
/// What the writer says, and what the runtime lacks.
pub fn serve(sandbox: bool, sources: &Sources, err: &mut impl Write) -> io::Result<u8> {
    let mode = if sandbox {
        Mode::ServeSandbox
    } else {
        Mode::Serve
    };
    run_until_shutdown(
        mode,
        sources,
        err,
        |config, shutdown, telemetry| async move {
            let app = App::build(config, mode, telemetry)
                .await
                .map_err(|error| ExitError {
                    code: error.exit_code(),
                    why: error.to_string(),
                })?;
            app.run(shutdown).await;
            Ok(())
        },
    )
}

/// Runs a sandbox alone, in the same way.
///
/// # Errors
///
/// What the writer says, and what the runtime lacks.
pub fn sandbox(sources: &Sources, err: &mut impl Write) -> io::Result<u8> {
    run_until_shutdown(
        Mode::Sandbox,
        sources,
        err,
        |config, shutdown, _telemetry| async move {
            let settings = sandbox_settings(&config.sandbox).map_err(ExitError::from_error)?;
            let sandbox = Sandbox::bind(settings).await.map_err(|error| {
                ExitError::from_error(format!("sandbox.listen {}: {error}", config.sandbox.listen))
            })?;
            tracing::info!(address = %sandbox.local_addr(), "the sandbox is at {}", sandbox.base_url());
            let served = sandbox.run(shutdown.cancelled_owned()).await;
            served.map_err(ExitError::from_error)
        },
    )
}

/// Reads the settings, starts the log and the runtime, and runs.
fn run_until_shutdown<R, F>(
    mode: Mode,
    sources: &Sources,
    err: &mut impl Write,
    run: R,
) -> io::Result<u8>
where
    R: FnOnce(Config, CancellationToken, Telemetry) -> F,
    F: Future<Output = Result<(), ExitError>>,
{
    let loaded = match load_and_check(sources, mode) {
        Ok(loaded) => loaded,
        Err(error) => {
            write_line(err, &error.to_string())?;
            return Ok(config::EXIT_CODE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let telemetry = {
        // The way to a collector is made in the runtime that it runs in.
        let _runtime = runtime.enter();
        Telemetry::init(&loaded.config.telemetry)
    };
    let telemetry = match telemetry {
        Ok(telemetry) => telemetry,
        Err(error) => {
            write_line(err, &error.to_string())?;
            return Ok(config::EXIT_CODE);
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let ran = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let forced = handle_shutdown_signals(shutdown.clone())?;
        tokio::select! {
            ran = run(loaded.config, shutdown, telemetry) => Ok::<_, io::Error>(Some(ran)),
            () = forced => Ok(None),
        }
    })?;
    // What is left after a bounded drain is not waited for.
    runtime.shutdown_background();
    Ok(match ran {
        Some(Ok(())) => 0,
        Some(Err(ExitError { code, why })) => {
            write_line(err, &format!("the start failed: {why}"))?;
            code
        }
        None => {
            tracing::warn!("a second signal: ending at once");
            EXIT_FAILURE
        }
    })
}

/// Lets the process have as many connections as the system allows it: shells give far fewer.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT; ends at the second.
fn handle_shutdown_signals(shutdown: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        wait_for_either(&mut terminate, &mut interrupt).await;
        shutdown.cancel();
        wait_for_either(&mut terminate, &mut interrupt).await;
    })
}

async fn wait_for_either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _one = one.recv() => {}
        _other = other.recv() => {}
    }
}
