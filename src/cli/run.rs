//! Runs a server until a signal, with logs, traces and metrics.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::exit::ExitError,
    config::{Config, LoadedConfig},
    connections::raise_file_limit,
    telemetry::Telemetry,
};

/// Starts telemetry and the runtime, then runs `serve` until it ends. The first SIGTERM or SIGINT
/// cancels its token; the second exits with code 1.
pub(super) fn run_until_shutdown<R, F>(loaded: LoadedConfig, serve: R) -> Result<(), ExitError>
where
    R: FnOnce(Config, CancellationToken, Telemetry) -> F,
    F: Future<Output = Result<(), ExitError>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let telemetry = {
        // OTLP over gRPC connects through the current runtime.
        let _runtime = runtime.enter();
        Telemetry::init(&loaded.config.telemetry)
    };
    let telemetry = telemetry.map_err(ExitError::settings)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let second_signal = handle_signals(shutdown.clone())?;
        tokio::select! {
            result = serve(loaded.config, shutdown, telemetry) => result,
            () = second_signal => {
                tracing::warn!("second signal: exiting immediately");
                Err(ExitError::silent())
            }
        }
    });
    // The drain is bounded: do not wait for tasks that exceeded it.
    runtime.shutdown_background();
    result
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT. The future ends at the second.
fn handle_signals(shutdown: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        next_signal(&mut terminate, &mut interrupt).await;
        shutdown.cancel();
        next_signal(&mut terminate, &mut interrupt).await;
    })
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _terminate = terminate.recv() => {}
        _interrupt = interrupt.recv() => {}
    }
}
