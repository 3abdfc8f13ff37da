//! Log lines on standard error. Standard output is reserved for the output of commands.

use std::io::{self, IsTerminal as _};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Level, Subscriber, subscriber::set_global_default};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt::{self, MakeWriter},
    layer::{Filter, SubscriberExt},
    registry::LookupSpan,
    reload,
};

use crate::{
    config::{LogFormat, parse_log_filter},
    telemetry::{error::TelemetryError, log_filter::LogFilter, names},
};

/// Prefix of the targets of the crates of this workspace.
const OUR_TARGETS: &str = "thingspace_";

/// Writes the log lines that match `filter` (syntax of tracing's `EnvFilter`) to standard error, and
/// sends the spans of this module to `tracer`, if traces are exported. Applies to the whole process.
///
/// # Errors
///
/// An invalid filter, or a second call.
pub(super) fn init(
    log_format: LogFormat,
    filter: &str,
    tracer: Option<SdkTracer>,
) -> Result<LogFilter, TelemetryError> {
    let is_terminal = io::stderr().is_terminal();
    let json = match log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let (reloading, handle) = reload::Layer::new(parse_log_filter(filter)?);
    let lines = log_lines(json, is_terminal, io::stderr, reloading);
    let subscriber = tracing_subscriber::registry().with(lines).with(tracer.map(spans));
    set_global_default(subscriber).map_err(|_| TelemetryError::AlreadySet)?;
    Ok(LogFilter::new(Some(handle), filter.to_owned()))
}

/// Writes warnings and errors as text to standard error, for a command that is not a server.
pub fn log_warnings() {
    let lines = log_lines(false, io::stderr().is_terminal(), io::stderr, LevelFilter::WARN);
    // Tests of one process run several commands.
    let _ = set_global_default(tracing_subscriber::registry().with(lines));
}

/// Writes log lines. The filter does not apply to exported spans.
///
/// Libraries log at most at level INFO: the lines below it can contain headers, bodies and parameters of statements.
fn log_lines<W>(
    json: bool,
    is_terminal: bool,
    writer: W,
    filter: impl Filter<Registry> + Send + Sync + 'static,
) -> impl Layer<Registry> + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // `log_internal_errors` would report a failed write with `eprintln!`, which panics if standard error
    // itself failed.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = if json {
        let lines = lines.json().flatten_event(true);
        lines.with_span_list(false).with_current_span(false).boxed()
    } else if is_terminal {
        // Coloured unless `NO_COLOR` is set (<https://no-color.org>).
        lines.boxed()
    } else {
        lines.with_ansi(false).boxed()
    };
    let is_safe = filter_fn(|metadata| {
        *metadata.level() <= Level::INFO || metadata.target().starts_with(OUR_TARGETS)
    });
    lines.with_filter(filter.and(is_safe))
}

/// Exports the spans of this module, without events. Ignores the spans of other libraries.
fn spans<S>(tracer: SdkTracer) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
{
    let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == names::SCOPE);
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
}

#[cfg(test)]
mod tests;
