use super::*;

const SECRET: &str = "planted-path-secret";

fn account() -> AccountName {
    AccountName::parse("0000123456-00001").unwrap()
}

fn desired(path_secret: Option<&str>, login: bool) -> DesiredListener {
    DesiredListener {
        public_url: "https://callbacks.example.com/edge/".parse().unwrap(),
        path_secret: path_secret.map(SecretString::from),
        credentials: login.then(|| ("user".into(), "word".into())),
    }
}

fn listed(url: &str, login: Option<(&str, &str)>) -> ListenerRegistration {
    let (username, password) = login.unzip();
    ListenerRegistration {
        service: "CarrierService".into(),
        url: url.into(),
        username: username.map(SecretString::from),
        password: password.map(SecretString::from),
    }
}

fn status(desired: &DesiredListener, one: ListenerRegistration) -> RegistrationState {
    desired.evaluate(&account(), "CarrierService", &[one]).0
}

#[test]
fn the_registered_url_has_the_account_path_below_the_public_url() {
    let registration = desired(Some(SECRET), true).registration(&account(), "CarrierService");
    assert_eq!(
        registration.url.expose_secret(),
        "https://callbacks.example.com/edge/accounts/0000123456-00001/callbacks/\
         CarrierService/planted-path-secret"
    );
    assert!(!format!("{registration:?}").contains("planted"));
    let desired = desired(Some(SECRET), true);
    assert_eq!(status(&desired, registration), RegistrationState::Registered);
}

#[test]
fn here_is_each_address_that_the_listener_takes_and_no_other() {
    let base = "https://callbacks.example.com/edge";
    let with = desired(Some(SECRET), false);
    for url in [
        format!("{base}/callbacks/CarrierService/{SECRET}"),
        format!(
            "HTTPS://Callbacks.Example.com:443/edge/accounts/0000123456-00001/callbacks/\
             CarrierService/{SECRET}"
        ),
    ] {
        assert_eq!(status(&with, listed(&url, None)), RegistrationState::Registered, "{url}");
    }
    for url in [
        format!("{base}/callbacks/CarrierService"),
        format!("{base}/callbacks/CarrierService/{SECRET}/"),
        format!("{base}/callbacks/CarrierService/{SECRET}?a=b"),
        format!("{base}/callbacks/CarrierService/another-path-secret"),
        format!("{base}/callbacks/DeviceProfileService/{SECRET}"),
        format!("{base}/accounts/0000123456-00002/callbacks/CarrierService/{SECRET}"),
        format!("http://callbacks.example.com/edge/callbacks/CarrierService/{SECRET}"),
        format!("https://callbacks.example.com.evil.example/callbacks/CarrierService/{SECRET}"),
        "no URL".into(),
    ] {
        let actual = status(&with, listed(&url, None));
        assert_eq!(actual, RegistrationState::OtherUrl, "{url}");
    }
    let without = desired(None, false);
    for (rest, expected) in [
        ("", RegistrationState::Registered),
        ("/anything", RegistrationState::Registered),
        ("/any/thing", RegistrationState::OtherUrl),
        ("More", RegistrationState::OtherUrl),
    ] {
        let url = format!("{base}/callbacks/CarrierService{rest}");
        assert_eq!(status(&without, listed(&url, None)), expected, "{url}");
    }
}

#[test]
fn other_credentials_are_reported_where_credentials_are_set() {
    let url = format!("https://callbacks.example.com/edge/callbacks/CarrierService/{SECRET}");
    let with = desired(Some(SECRET), true);
    for (login, expected) in [
        (Some(("user", "word")), RegistrationState::Registered),
        (Some(("user", "former")), RegistrationState::WrongCredentials),
        (None, RegistrationState::WrongCredentials),
    ] {
        assert_eq!(status(&with, listed(&url, login)), expected, "{login:?}");
    }
    let without = desired(Some(SECRET), false);
    let actual = status(&without, listed(&url, Some(("user", "word"))));
    assert_eq!(actual, RegistrationState::Registered);
}
