//! The address that should be registered, and what a registration means beside it.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    domain::newtypes::{AccountName, CallbackService},
    thingspace::ListenerRegistration,
};

/// The services that tell results.
pub(super) const RESULT_SERVICES: [&str; 2] =
    [CallbackService::CARRIER, CallbackService::DEVICE_PROFILE];
/// Characters of a foreign host that are shown.
const MAX_HOST: usize = 255;

/// The listener's address, and what callbacks should carry.
#[derive(Debug, Clone)]
pub struct DesiredListener {
    /// What is in front of the listener's paths. Without user name, query and fragment.
    pub public_url: Url,
    /// The last segment of its paths.
    pub path_secret: Option<SecretString>,
    /// User name and password.
    pub credentials: Option<(SecretString, SecretString)>,
}

/// Where the callbacks of a service go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceStatus {
    /// Nobody could be asked.
    Unknown,
    /// Here, with what they should carry.
    Here,
    /// Here, with another user name or password, or without.
    OtherCredentials,
    /// To somebody else, or to a path that is not taken here.
    Elsewhere,
    /// Nowhere.
    Missing,
}

// === impl Own ===

impl DesiredListener {
    /// What is to be registered. It names the account, which no callback's body does.
    pub(super) fn registration(
        &self,
        account: &AccountName,
        service: &str,
    ) -> ListenerRegistration {
        let [mut url, _] = self.accepted_urls(account, service);
        if let Some(secret) = &self.path_secret {
            let path = format!("{}/{}", url.path(), secret.expose_secret());
            url.set_path(&path);
        }
        let (username, password) = self.credentials.clone().unzip();
        ListenerRegistration {
            service: service.to_owned(),
            url: String::from(url).into(),
            username,
            password,
        }
    }

    /// Where the callbacks of a service go, and by which registration.
    pub(super) fn evaluate<'l>(
        &self,
        account: &AccountName,
        service: &str,
        listed: &'l [ListenerRegistration],
    ) -> (ServiceStatus, Option<&'l ListenerRegistration>) {
        let mut status = (ServiceStatus::Missing, None);
        let same = |one: &&ListenerRegistration| one.service.eq_ignore_ascii_case(service);
        for one in listed.iter().filter(same) {
            if !self.matches_url(account, service, &one.url) {
                return (ServiceStatus::Elsewhere, Some(one));
            }
            let here = match self.matches_credentials(one) {
                true => ServiceStatus::Here,
                false => ServiceStatus::OtherCredentials,
            };
            status = (here, Some(one));
        }
        status
    }

    /// With and without the account: the listener takes both.
    fn accepted_urls(&self, account: &AccountName, service: &str) -> [Url; 2] {
        [
            format!("/accounts/{account}/callbacks/{service}"),
            format!("/callbacks/{service}"),
        ]
        .map(|path| {
            let mut url = self.public_url.clone();
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
            url
        })
    }

    fn matches_url(&self, account: &AccountName, service: &str, url: &SecretString) -> bool {
        // Read as a URL, so that case and default ports make no difference.
        let Ok(url) = Url::parse(url.expose_secret()) else {
            return false;
        };
        self.accepted_urls(account, service).iter().any(|accepted| {
            let rest = url.as_str().strip_prefix(accepted.as_str());
            match (rest, &self.path_secret) {
                (None, _) => false,
                (Some(rest), Some(secret)) => {
                    rest.strip_prefix('/') == Some(secret.expose_secret())
                }
                // Whatever stands in the secret's place is ignored by the listener.
                (Some(""), None) => true,
                (Some(rest), None) => rest.strip_prefix('/').is_some_and(|segment| {
                    !segment.is_empty() && !segment.contains(['/', '?', '#'])
                }),
            }
        })
    }

    /// Without a pair of its own the listener compares nothing.
    fn matches_credentials(&self, listed: &ListenerRegistration) -> bool {
        let Some((username, password)) = &self.credentials else {
            return true;
        };
        let same = |listed: &Option<SecretString>, expected: &SecretString| {
            let listed = listed.as_ref().map(ExposeSecret::expose_secret);
            listed == Some(expected.expose_secret())
        };
        same(&listed.username, username) && same(&listed.password, password)
    }
}

// === impl Standing ===

impl ServiceStatus {
    pub(super) const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Here,
        Self::OtherCredentials,
        Self::Elsewhere,
        Self::Missing,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Here => "here",
            Self::OtherCredentials => "other_credentials",
            Self::Elsewhere => "elsewhere",
            Self::Missing => "missing",
        }
    }
}

/// What may be shown of an address that is somebody's: scheme, host and port. The rest may have
/// secrets in it.
pub(super) fn url_origin(url: &SecretString) -> String {
    let Ok(url) = Url::parse(url.expose_secret()) else {
        return "something that is no URL".to_owned();
    };
    let host: String = url
        .host_str()
        .unwrap_or_default()
        .chars()
        .take(MAX_HOST)
        .collect();
    match url.port_or_known_default() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
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

    fn status(desired: &DesiredListener, one: ListenerRegistration) -> ServiceStatus {
        desired.evaluate(&account(), "CarrierService", &[one]).0
    }

    #[test]
    fn what_is_registered_is_the_path_with_the_account_below_the_public_url() {
        let registration = desired(Some(SECRET), true).registration(&account(), "CarrierService");
        assert_eq!(
            registration.url.expose_secret(),
            "https://callbacks.example.com/edge/accounts/0000123456-00001/callbacks/\
             CarrierService/planted-path-secret"
        );
        assert!(!format!("{registration:?}").contains("planted"));
        let desired = desired(Some(SECRET), true);
        assert_eq!(status(&desired, registration), ServiceStatus::Here);
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
            assert_eq!(
                status(&with, listed(&url, None)),
                ServiceStatus::Here,
                "{url}"
            );
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
            assert_eq!(actual, ServiceStatus::Elsewhere, "{url}");
        }
        let without = desired(None, false);
        for (rest, expected) in [
            ("", ServiceStatus::Here),
            ("/anything", ServiceStatus::Here),
            ("/any/thing", ServiceStatus::Elsewhere),
            ("More", ServiceStatus::Elsewhere),
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
            (Some(("user", "word")), ServiceStatus::Here),
            (Some(("user", "former")), ServiceStatus::OtherCredentials),
            (None, ServiceStatus::OtherCredentials),
        ] {
            assert_eq!(status(&with, listed(&url, login)), expected, "{login:?}");
        }
        let without = desired(Some(SECRET), false);
        let actual = status(&without, listed(&url, Some(("user", "word"))));
        assert_eq!(actual, ServiceStatus::Here);
    }

    #[test]
    fn only_scheme_host_and_port_of_a_foreign_listener_are_shown() {
        let shown = url_origin(&"https://u:p@old.example.com:9002/token-1?key=2#3".into());
        assert_eq!(shown, "https://old.example.com:9002");
        assert_eq!(
            url_origin(&"what a secret".into()),
            "something that is no URL"
        );
    }
}
