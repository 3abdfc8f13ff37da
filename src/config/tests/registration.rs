use super::*;

fn guarded(register: &str) -> Sources {
    real()
        .with_flag("callbacks.register", register)
        .with_flag("callbacks.public_url", "https://callbacks.example.com:9001")
        .with_flag("thingspace.accounts", "0000123456-00001")
}

fn warnings(sources: &Sources) -> String {
    load(sources).check_for(Mode::Serve).unwrap().join("\n")
}

#[test]
fn registration_needs_a_public_url_accounts_and_a_listener_secret() {
    let register = |key| real().with_flag("callbacks.register", key);
    let line = error_for(&register("replace"), Mode::Serve);
    assert!(line.contains("callbacks.public_url"), "{line}");
    let line = register("if_unclaimed").with_flag("callbacks.public_url", "https://example.com");
    let line = error_for(&line, Mode::Serve);
    assert!(line.contains("thingspace.accounts"), "{line}");

    let open = guarded("replace").with_flag("callbacks.listen", "127.0.0.1:9001");
    let mut config = load(&open);
    config.callbacks.path_secret = None;
    let line = config.check_for(Mode::Serve).unwrap_err().to_string();
    assert!(line.contains("callbacks.path_secret"), "{line}");
    assert_eq!(warnings(&guarded("replace")), "");
}

#[test]
fn an_unreachable_port_and_a_url_without_accounts_cause_warnings() {
    let with = |key, value| warnings(&guarded("never").with_flag(key, value));
    let port = with("callbacks.public_url", "https://callbacks.example.com:9000");
    assert!(port.contains("port 9000"), "{port}");
    let plain = with("callbacks.public_url", "http://callbacks.example.com");
    assert!(plain.contains("plain http") && !plain.contains("port"), "{plain}");
    let alone = with("thingspace.accounts", "");
    assert!(alone.contains("no effect without thingspace.accounts"), "{alone}");
    let line = error(&with_account("0000'1"));
    assert!(line.contains("thingspace.accounts"), "{line}");
}

fn with_account(name: &str) -> Sources {
    guarded("never").with_flag("thingspace.accounts", name)
}
