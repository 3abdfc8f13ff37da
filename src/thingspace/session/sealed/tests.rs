use super::*;

const TOKEN: &str = "planted-token";
const SESSION: &str = "planted-session";

fn credentials() -> ThingSpaceCredentials {
    let secret = SecretString::from;
    ThingSpaceCredentials {
        app_key: secret("key"),
        app_secret: secret("secret"),
        uws_username: secret("user"),
        uws_password: secret("password"),
    }
}

fn login() -> SharedLogin {
    SharedLogin {
        token: Some(SharedToken {
            text: TOKEN.into(),
            expires_at: Timestamp::from_micros(1),
            lifetime: Duration::from_secs(3_600),
        }),
        session: Some(SESSION.into()),
        token_retry: Some(SharedRetry {
            failures: 2,
            failed_at: Timestamp::from_micros(2),
            due: Timestamp::from_micros(3),
            refusal: Refusal::not_sent("the log-in failed"),
        }),
        ..SharedLogin::default()
    }
}

#[test]
fn the_stored_bytes_contain_neither_token_nor_session_and_decrypt_to_both() {
    let sealed = login().seal(&credentials()).unwrap();
    for planted in [TOKEN, SESSION] {
        let found = sealed.windows(planted.len()).any(|bytes| bytes == planted.as_bytes());
        assert!(!found, "{planted}");
    }
    assert!(SharedLogin::unseal(&sealed, &credentials()) == Some(login()));
    let again = login().seal(&credentials()).unwrap();
    assert_ne!(sealed, again, "the nonce is random");
}

#[test]
fn other_credentials_cannot_decrypt_a_value() {
    let sealed = login().seal(&credentials()).unwrap();
    let other = || SecretString::from("other");
    for (name, credentials) in [
        ("secret", ThingSpaceCredentials { app_secret: other(), ..credentials() }),
        ("key", ThingSpaceCredentials { app_key: other(), ..credentials() }),
        ("user", ThingSpaceCredentials { uws_username: other(), ..credentials() }),
        ("password", ThingSpaceCredentials { uws_password: other(), ..credentials() }),
    ] {
        assert!(SharedLogin::unseal(&sealed, &credentials).is_none(), "{name}");
    }
}

#[test]
fn a_damaged_value_counts_as_absent() {
    let sealed = login().seal(&credentials()).unwrap();
    for position in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[position] ^= 1;
        assert!(SharedLogin::unseal(&damaged, &credentials()).is_none(), "{position}");
        assert!(SharedLogin::unseal(&sealed[..position], &credentials()).is_none(), "{position}");
    }
    assert!(SharedLogin::unseal(&[], &credentials()).is_none());
}
