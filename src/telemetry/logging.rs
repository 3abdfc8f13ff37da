//! Log lines, on standard error: standard output is for what a command was asked to print.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Text`] when standard error is a terminal, otherwise [`LogFormat::Json`].
    Auto,
    /// One JSON object a line, for machines.
    Json,
    /// Readable lines, for people.
    Text,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not in the syntax of `EnvFilter`.
    #[error("cannot read the log filter: {0}")]
    Filter(#[from] ParseError),
    /// Something else in this process set up logging before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sends the log lines that `filter` lets pass (syntax of tracing's `EnvFilter`, such as `info`) to
/// standard error, for the whole process and once only.
///
/// # Errors
///
/// [`TelemetryError`] for an unreadable filter or a second call.
pub fn init(log_format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let stderr_is_terminal = io::stderr().is_terminal();
    let json = match log_format {
        LogFormat::Auto => !stderr_is_terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let filter = EnvFilter::try_new(filter)?;
    let set = if json {
        set_global_default(json_lines(filter, io::stderr))
    } else {
        set_global_default(text_lines(
            filter,
            io::stderr,
            stderr_is_terminal && wants_color(),
        ))
    };
    set.map_err(|_| TelemetryError::AlreadySet)
}

/// A terminal that asks for no colour (<https://no-color.org>) gets none.
fn wants_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

// The layer would report a failed write with `eprintln!`, which panics when standard error is what
// failed: neither form reports its own errors.

fn json_lines<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .log_internal_errors(false)
        .finish()
}

fn text_lines<W>(filter: EnvFilter, writer: W, color: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_ansi(color)
        .with_env_filter(filter)
        .with_writer(writer)
        .log_internal_errors(false)
        .finish()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
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
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = json_lines(EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(subscriber, log_something);

        let object: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!(object["message"], "listening");
        assert_eq!(object["port"], 9001);
        assert_eq!(object["level"], "INFO");
    }

    #[test]
    fn a_text_log_line_has_no_escape_codes_unless_asked_for() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = text_lines(EnvFilter::new("info"), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, log_something);

        let text = lines.text();
        assert!(text.contains("listening port=9001"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
