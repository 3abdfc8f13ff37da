use super::*;

/// Settings of a gateway that accepts these credentials.
fn accepting(modes: &str) -> Sources {
    real().with_flag("auth.mode", modes).with_flag("auth.policy_file", "policy.toml")
}

fn jwt() -> Sources {
    accepting("jwt")
        .with_flag("auth.jwt_issuer", "https://issuer.example")
        .with_flag("auth.jwt_audience", "gateway")
        .with_flag("grpc.listen", "127.0.0.1:0")
}

fn mesh() -> Sources {
    accepting("mesh")
        .with_flag("auth.mesh_header", "l5d-client-id")
        .with_flag("auth.mesh_trusted_cidrs", "10.0.0.0/8")
}

fn warnings_of(sources: &Sources) -> Vec<String> {
    load(sources).check_for(Mode::Serve).unwrap()
}

#[test]
fn several_credentials_can_be_accepted() {
    let config = load(&with("auth.mode", "mtls, JWT,mesh"));
    assert_eq!(config.auth.modes(), [AuthMode::Mtls, AuthMode::Jwt, AuthMode::Mesh]);
    assert!(config.auth.accepts(AuthMode::Jwt) && !config.auth.accepts(AuthMode::None));
    assert_eq!(load(&Sources::default()).auth.modes(), [AuthMode::None]);

    for text in ["[auth]\nmode = \"mtls\"", "[auth]\nmode = [\"mtls\"]"] {
        let (_dir, path) = file_with(text);
        let config = load(&Sources::default().with_file(path));
        assert_eq!(config.auth.modes(), [AuthMode::Mtls], "{text}");
    }
    for value in ["", "mtls,", "password"] {
        let line = error(&with("auth.mode", value));
        assert!(line.contains("expected one or more of `none`, `mtls`, `jwt` or `mesh`"), "{line}");
    }
}

#[test]
fn a_symmetric_algorithm_cannot_be_configured() {
    use JwtAlgorithm::{EdDsa, Es256, Rs256};

    assert_eq!(load(&Sources::default()).auth.jwt_algorithms, [Rs256, Es256, EdDsa]);
    for value in ["HS256", "none", "RS256,HS512", "ES512"] {
        let line = error(&with("auth.jwt_algorithms", value));
        assert!(line.contains("expected one or more of `RS256`"), "{line}");
    }
}

#[test]
fn each_kind_of_credential_needs_its_settings() {
    let url = jwt().with_flag("auth.jwt_jwks_url", "https://issuer.example/keys");
    let mesh_without_header = accepting("mesh").with_flag("auth.mesh_trusted_cidrs", "10.0.0.0/8");
    for (sources, key) in [
        (accepting("none,jwt"), "auth.mode"),
        (accepting("mtls"), "grpc.tls_client_ca_file"),
        (accepting("jwt"), "auth.jwt_issuer"),
        (accepting("jwt").with_flag("auth.jwt_issuer", "i"), "auth.jwt_audience"),
        (jwt(), "auth.jwt_jwks_file"),
        (url.clone().with_flag("auth.jwt_jwks_file", "keys.json"), "auth.jwt_jwks_url"),
        (jwt().with_flag("auth.jwt_jwks_url", "http://issuer.example/keys"), "auth.jwt_jwks_url"),
        (mesh_without_header, "auth.mesh_header"),
        (mesh().with_flag("auth.mesh_trusted_cidrs", ""), "auth.mesh_trusted_cidrs"),
        (mesh().with_flag("auth.mesh_trusted_cidrs", "10.0.0.0/8,::/0"), "auth.mesh_trusted_cidrs"),
    ] {
        let line = error_for(&sources, Mode::Serve);
        assert!(line.starts_with(key), "{key}: {line}");
    }

    for sources in [
        url,
        jwt().with_flag("auth.jwt_jwks_url", "http://127.0.0.1:1/keys"),
        jwt().with_flag("auth.jwt_jwks_file", "keys.json"),
        mesh(),
    ] {
        assert_eq!(warnings_of(&sources), Vec::<String>::new());
    }
}

#[test]
fn settings_without_effect_and_unencrypted_tokens_cause_warnings() {
    let unused =
        real().with_flag("auth.jwt_leeway", "1m").with_flag("auth.mesh_header", "l5d-client-id");
    assert_eq!(
        warnings_of(&unused),
        [
            "auth.jwt_leeway has no effect without jwt in auth.mode",
            "auth.mesh_header has no effect without mesh in auth.mode",
        ]
    );
    let open = jwt()
        .with_flag("auth.jwt_jwks_file", "keys.json")
        .with_flag("grpc.listen", "0.0.0.0:50051");
    let warnings = warnings_of(&open);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("auth.mode = jwt without grpc.tls_cert_file"), "{warnings:?}");
}

#[test]
fn a_console_that_others_can_reach_needs_an_explicit_decision_about_identities() {
    let sources = |console: &str| {
        let sources = Sources::default().with_environment(REAL);
        sources.with_flag("grpc.listen", "127.0.0.1:0").with_flag("console.listen", console)
    };
    let check = |sources: &Sources, mode| load(sources).check_for(mode).is_ok();
    assert!(check(&sources("127.0.0.1:9091"), Mode::Serve));
    let open = sources("0.0.0.0:9091");
    let error = error_for(&open, Mode::Serve);
    assert!(
        error.starts_with("auth.mode") && error.contains("console.listen 0.0.0.0:9091"),
        "{error}"
    );
    assert!(check(&open.clone().with_flag("auth.mode", "none"), Mode::Serve));
    let other = open.with_flag("thingspace.base_url", "http://127.0.0.1:1/api");
    assert!(check(&other, Mode::Serve));
}
