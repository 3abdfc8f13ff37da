use super::*;

#[test]
fn a_database_is_named_without_its_user_and_password() {
    let name = |url: &str| name_database(&Secret::new(url));
    for (url, expected) in [
        ("postgresql://user:planted@db/gateway", "postgresql://db:5432/gateway"),
        (
            "postgres://user:planted@a,b/gateway?sslmode=disable",
            "postgresql://a:5432,b:5432/gateway",
        ),
        ("postgresql://user@a:1,b:2/gateway", "postgresql://a:1,b:2/gateway"),
        ("postgresql://user:planted@[::1]:6000/x?sslmode=disable", "postgresql://[::1]:6000/x"),
        ("postgresql://user:planted@db", "postgresql://db:5432/user"),
        ("postgresql://user@%2Frun%2Fpostgresql/x", "postgresql:///run/postgresql:5432/x"),
    ] {
        assert_eq!(name(url).as_deref(), Some(expected), "{url}");
    }
    assert_eq!(name("user:planted"), None);
}
