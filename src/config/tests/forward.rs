//! The settings for forwarding callbacks.

use super::*;

fn with_webhook(url: &str) -> Sources {
    real().with_flag("callbacks.forward_url", url)
}

#[test]
fn another_webhook_causes_no_warning() {
    for url in [
        "http://127.0.0.1:9002/hook",
        "https://callbacks.example.com:9001/old/{service}?token=hush",
    ] {
        let warnings = load(&with_webhook(url)).check_for(Mode::Serve).unwrap();
        assert_eq!(warnings, Vec::<String>::new(), "{url}");
    }
}

#[test]
fn an_invalid_webhook_url_is_rejected_without_repeating_it() {
    for wrong in [
        "hush",
        "ftp://hush.example.com",
        "https://hush@example.com/",
        "https://example.com/#hush",
        // The sender picks the service's name, and so would pick the host.
        "https://{service}.example.com/hush",
    ] {
        let line = error(&with_webhook(wrong));
        assert!(line.starts_with("callbacks.forward_url"), "{line}");
        assert!(!line.contains("hush") && line.contains("`https` URL"), "{line}");
    }
}

#[test]
fn settings_without_effect_and_plain_http_cause_warnings() {
    let warnings = |sources: Sources| load(&sources).check_for(Mode::Serve).unwrap().join("\n");
    let alone = warnings(real().with_flag("callbacks.forward_max_age", "1h"));
    assert!(alone.contains("no effect without callbacks.forward_url"), "{alone}");
    for local in ["gateway.localhost.", "127.0.0.2", "[::ffff:127.0.0.1]"] {
        let local = warnings(with_webhook(&format!("http://{local}:8000/hook")));
        assert!(!local.contains("plain http"), "{local}");
    }
    let clear = warnings(with_webhook("http://old.example.com/hook?hush"));
    assert!(clear.contains("plain http") && !clear.contains("hush"), "{clear}");
    let short = with_webhook("https://old.example.com/")
        .with_flag("journal.retention", "2d")
        .with_flag("changes.close_after", "1d");
    assert!(warnings(short).contains("callbacks.forward_max_age"));
}
