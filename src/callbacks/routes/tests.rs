use super::*;

#[test]
fn a_path_is_routed_by_its_segments() {
    let route = |path| find(path).map(|routed| routed.route);
    for (path, expected) in [
        ("/callbacks/S", "/callbacks/{service}"),
        ("/callbacks/S/x", "/callbacks/{service}/{secret}"),
        ("/accounts/A/callbacks/S", "/accounts/{account}/callbacks/{service}"),
        ("/accounts/A/callbacks/S/x", "/accounts/{account}/callbacks/{service}/{secret}"),
        ("/callbacks/callbacks/callbacks", "/callbacks/{service}/{secret}"),
        ("/accounts/callbacks/callbacks/S", "/accounts/{account}/callbacks/{service}"),
    ] {
        assert_eq!(route(path), Some(expected), "{path}");
    }
    for path in [
        "",
        "*",
        "/",
        "/callbacks",
        "/callbacks/",
        "/callbacks//",
        "/callbacks/S/",
        "/callbacks//x",
        "/callbacks/S/x/",
        "/callbacks/S/x/y",
        "/Callbacks/S",
        "/accounts/A",
        "/accounts/A/S",
        "/accounts/A/callbacks",
        "/accounts/A/callbacks/",
        "/accounts//callbacks/S",
        "/accounts/A/B/callbacks/S",
        "/accounts/A/callbacks/S/x/y",
        "//callbacks/S",
    ] {
        assert_eq!(route(path), None, "{path}");
    }
}

#[test]
fn the_parameters_are_decoded_and_bounded() {
    let path = find("/accounts/0000123456%2D00001/callbacks/Carrier%53ervice/a%2Fb%25").unwrap();
    let path = path.decode().unwrap();
    assert_eq!(path.account_name().unwrap().as_str(), "0000123456-00001");
    assert_eq!(path.callback_service().unwrap().as_str(), "CarrierService");
    assert_eq!(path.secret.as_deref(), Some("a/b%"));

    let decode = |segment: &str| find(&format!("/callbacks/{segment}")).unwrap().decode().is_some();
    assert!(decode(&"s".repeat(128)) && !decode(&"s".repeat(129)));
    assert!(decode(&"%73".repeat(128)) && !decode("%ff"));
}
