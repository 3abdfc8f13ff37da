//! Log lines on standard error. Standard output is reserved for the output of commands.

use std::io::{self, IsTerminal as _};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Subscriber, subscriber::set_global_default};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    registry::LookupSpan,
};

use crate::{
    config::LogFormat,
    telemetry::{error::TelemetryError, names},
};

/// Writes the log lines that match `filter` (syntax of tracing's `EnvFilter`) to standard error, and
/// sends the spans of this module to `tracer`. Applies to the whole process.
///
/// # Errors
///
/// An invalid filter, or a second call.
pub(super) fn init(
    log_format: LogFormat,
    filter: &str,
    tracer: SdkTracer,
) -> Result<(), TelemetryError> {
    let stderr_is_terminal = io::stderr().is_terminal();
    let json = match log_format {
        LogFormat::Auto => !stderr_is_terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let filter = EnvFilter::try_new(filter)?;
    let color = stderr_is_terminal && wants_color();
    let set = if json {
        set_global_default(registry(json_lines(io::stderr), filter).with(spans(tracer)))
    } else {
        set_global_default(registry(text_lines(io::stderr, color), filter).with(spans(tracer)))
    };
    set.map_err(|_| TelemetryError::AlreadySet)
}

/// Applies the log filter to log lines only. Spans are exported regardless.
fn registry<L>(
    lines: L,
    filter: EnvFilter,
) -> impl Subscriber + Send + Sync + for<'s> LookupSpan<'s>
where
    L: Layer<Registry> + Send + Sync,
{
    tracing_subscriber::registry().with(lines.with_filter(filter))
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

/// False if `NO_COLOR` is set (<https://no-color.org>).
fn wants_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

// Both formats disable `log_internal_errors`: it reports a failed write with `eprintln!`, which panics
// if standard error itself failed.

fn json_lines<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_current_span(false)
        .with_writer(writer)
        .log_internal_errors(false)
}

fn text_lines<S, W>(writer: W, color: bool) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(color).with_writer(writer).log_internal_errors(false)
}

#[cfg(test)]
mod tests;
