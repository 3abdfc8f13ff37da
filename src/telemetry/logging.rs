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
    tracing_subscriber::fmt::layer()
        .with_ansi(color)
        .with_writer(writer)
        .log_internal_errors(false)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogBuffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log_something() {
        tracing::debug!("filtered out");
        tracing::info!(port = 9001, "listening");
    }

    #[test]
    fn a_json_log_line_is_one_object_with_its_fields_on_top() {
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let subscriber = registry(json_lines(move || writer.clone()), EnvFilter::new("info"));
        tracing::subscriber::with_default(subscriber, log_something);

        let object: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!(object["message"], "listening");
        assert_eq!(object["port"], 9001);
        assert_eq!(object["level"], "INFO");
    }

    #[test]
    fn a_text_log_line_has_no_escape_codes_unless_asked_for() {
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let subscriber = registry(
            text_lines(move || writer.clone(), false),
            EnvFilter::new("info"),
        );
        tracing::subscriber::with_default(subscriber, log_something);

        let text = lines.text();
        assert!(text.contains("listening port=9001"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
