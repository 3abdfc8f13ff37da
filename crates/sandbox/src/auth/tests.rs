//! Tokens, sessions and failed log-ins, on a paused clock.

use std::{fs, path::Path, time::Duration};

use thingspace_settings::SecretFormat;

use super::*;

const IDLE: Duration = Duration::from_secs(20 * 60);

fn with(change: impl FnOnce(&mut Settings)) -> Auth {
    let mut settings = Settings {
        app_key: Some(Secret::new("key")),
        app_secret: Some(Secret::new("secret")),
        uws_username: Some(Secret::new("user")),
        uws_password: Some(Secret::new("pass")),
        ..crate::tests::harness::quick()
    };
    change(&mut settings);
    Auth::new(&settings, fastrand::Rng::with_seed(1)).unwrap()
}

fn auth() -> Auth {
    with(|_| {})
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    headers
}

fn issue(auth: &mut Auth, headers: &HeaderMap) -> Issued {
    let Ok(app) = auth.authenticate_app(headers) else {
        panic!("the credentials are valid");
    };
    auth.issue(app)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_issued_again_within_its_hour_and_is_another_one_after_it() {
    let mut auth = auth();
    let basic = headers("authorization", "Basic a2V5OnNlY3JldA==");
    let first = issue(&mut auth, &basic);
    assert_eq!(first.expires_in, 3600);
    let bearer = headers("authorization", &format!("Bearer {}", first.value));

    tokio::time::advance(Duration::from_secs(3000)).await;
    let again = issue(&mut auth, &basic);
    assert_eq!((again.value, again.expires_in), (first.value.clone(), 600));
    assert!(auth.check_token(&bearer).is_ok());

    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(auth.check_token(&bearer).is_err());
    assert_ne!(issue(&mut auth, &basic).value, first.value);
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_while_it_is_used_and_expires_after_twenty_idle_minutes() {
    let mut auth = auth();
    let value = auth.login("user", "pass").unwrap();
    let session = headers("vz-m2m-token", &value);
    for _ in 0..5 {
        tokio::time::advance(IDLE - Duration::from_secs(1)).await;
        assert!(auth.use_session(&session).is_ok());
    }
    tokio::time::advance(IDLE).await;
    let error = format!("{:?}", auth.use_session(&session).unwrap_err());
    assert!(error.contains(code::SESSION_EXPIRED), "{error}");
}

#[test]
fn five_failed_logins_in_a_row_lock_the_user() {
    let mut auth = auth();
    for _ in 0..4 {
        assert!(auth.login("user", "wrong").is_err());
    }
    assert!(auth.login("user", "pass").is_ok());
    for _ in 0..5 {
        assert!(auth.login("user", "wrong").is_err());
    }
    assert!(auth.login("user", "pass").is_err());
}

#[test]
fn an_unknown_user_is_not_locked() {
    let mut auth = auth();
    for _ in 0..5 {
        assert!(auth.login("unknown", "wrong").is_err());
    }
    assert_eq!(auth.locked_users(), 0);
    let mut auth = with(|settings| settings.uws_username = None);
    for _ in 0..5 {
        assert!(auth.login("one", "wrong").is_err());
    }
    assert_eq!(auth.locked_users(), 1);
    assert!(auth.login("one", "pass").is_err());
    assert!(auth.login("other", "pass").is_ok());
}

#[test]
fn a_revoked_token_is_rejected_and_followed_by_another() {
    let mut auth = auth();
    let basic = headers("authorization", "Basic a2V5OnNlY3JldA==");
    let first = issue(&mut auth, &basic).value;
    let app = auth.authenticate_app(&basic).ok().unwrap();
    auth.revoke(&app, &first);
    let bearer = headers("authorization", &format!("Bearer {first}"));
    assert!(auth.check_token(&bearer).is_err());
    assert_ne!(issue(&mut auth, &basic).value, first);
}

#[test]
fn a_retired_token_stays_valid_and_is_not_issued_again() {
    let mut auth = auth();
    let basic = headers("authorization", "Basic a2V5OnNlY3JldA==");
    let first = issue(&mut auth, &basic).value;
    auth.stop_reissuing(&first);
    let second = issue(&mut auth, &basic).value;
    assert_ne!(first, second);
    assert_eq!(issue(&mut auth, &basic).value, second);
    let bearer = headers("authorization", &format!("Bearer {first}"));
    assert!(auth.check_token(&bearer).is_ok());
}

#[test]
fn single_session_ends_the_first_session_on_a_second_login() {
    for single in [false, true] {
        let mut auth = with(|settings| settings.single_session = single);
        let first = auth.login("user", "pass").unwrap();
        let second = auth.login("user", "pass").unwrap();
        let use_it = |auth: &mut Auth, value: &str| {
            auth.use_session(&headers("vz-m2m-token", value)).is_ok()
        };
        assert_eq!(use_it(&mut auth, &first), !single);
        assert!(use_it(&mut auth, &second));
    }
}

#[tokio::test(start_paused = true)]
async fn lifetimes_are_the_ones_that_were_set() {
    let mut auth = with(|settings| {
        settings.token_lifetime = Duration::from_secs(90);
        settings.session_lifetime = Duration::from_secs(5);
    });
    let basic = headers("authorization", "Basic a2V5OnNlY3JldA==");
    let token = issue(&mut auth, &basic);
    assert_eq!(token.expires_in, 90);
    let session = headers("vz-m2m-token", &auth.login("user", "pass").unwrap());
    tokio::time::advance(Duration::from_millis(4_999)).await;
    assert!(auth.use_session(&session).is_ok());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(auth.use_session(&session).is_err());
    let bearer = headers("authorization", &format!("Bearer {}", token.value));
    assert!(auth.check_token(&bearer).is_ok());
    tokio::time::advance(Duration::from_millis(80_001)).await;
    assert!(auth.check_token(&bearer).is_err());
}

fn password_file(path: &Path) -> Secret {
    Secret::in_file(path.to_owned(), SecretFormat::text(1024))
}

#[test]
fn an_unreadable_secret_file_fails_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let settings =
        Settings { uws_password: Some(password_file(&path)), ..crate::tests::harness::quick() };
    let error = Auth::new(&settings, fastrand::Rng::with_seed(1)).err().unwrap().to_string();
    let expected = format!("cannot read the secret in {}: ", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_changed_secret_file_takes_effect_and_an_unreadable_one_keeps_its_last_content() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    fs::write(&path, "first").unwrap();
    let mut auth = with(|settings| settings.uws_password = Some(password_file(&path)));
    assert!(auth.login("user", "first").is_ok());
    fs::write(&path, "second").unwrap();
    assert!(auth.login("user", "first").is_err());
    assert!(auth.login("user", "second").is_ok());

    fs::remove_file(&path).unwrap();
    for _ in 0..MAX_FAILED_LOGINS {
        assert!(auth.login("user", "second").is_ok());
    }
    assert_eq!(auth.locked_users(), 0);
}
