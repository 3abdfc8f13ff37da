use std::sync::{Arc, Mutex};

use tracing_subscriber::EnvFilter;

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
    let layer = log_lines(true, false, move || writer.clone(), EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(layer);
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
    let layer = log_lines(false, false, move || writer.clone(), EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, log_something);

    let text = lines.text();
    assert!(text.contains("listening port=9001"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn lines_of_libraries_below_info_are_never_logged() {
    let lines = LogBuffer::default();
    let writer = lines.clone();
    let layer = log_lines(false, false, move || writer.clone(), EnvFilter::new("trace"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!(target: "h2::codec", "a header of a request");
        tracing::trace!(target: "tokio_postgres::query", "a parameter of a statement");
        tracing::info!(target: "h2::codec", "a library at INFO");
        tracing::trace!("a detail of the gateway");
    });
    let text = lines.text();
    assert!(
        text.contains("a library at INFO") && text.contains("a detail of the gateway"),
        "{text}"
    );
    assert!(!text.contains("a header") && !text.contains("a parameter"), "{text}");
}
