//! The address that should be registered, and what a registration means beside it.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    domain::newtypes::{AccountName, CallbackService},
    thingspace::Registration,
};

/// The services that tell results.
pub(super) const SERVICES: [&str; 2] = [CallbackService::CARRIER, CallbackService::DEVICE_PROFILE];
/// Characters of a foreign host that are shown.
const MAX_HOST: usize = 255;

/// The listener's address, and what callbacks should carry.
#[derive(Debug, Clone)]
pub struct Own {
    /// What is in front of the listener's paths. Without user name, query and fragment.
    pub public_url: Url,
    /// The last segment of its paths.
    pub path_secret: Option<SecretString>,
    /// User name and password.
    pub login: Option<(SecretString, SecretString)>,
}

/// Where the callbacks of a service go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody could be asked.
    Unknown,
    /// Here, with what they should carry.
    Here,
    /// Here, with another user name or password, or without.
    OtherLogin,
    /// To somebody else, or to a path that is not taken here.
    Elsewhere,
    /// Nowhere.
    Missing,
}

// === impl Own ===

impl Own {
    /// What is to be registered. It names the account, which no callback's body does.
    pub(super) fn registration(&self, account: &AccountName, service: &str) -> Registration {
        let [mut url, _] = self.paths(account, service);
        if let Some(secret) = &self.path_secret {
            let path = format!("{}/{}", url.path(), secret.expose_secret());
            url.set_path(&path);
        }
        let (username, password) = self.login.clone().unzip();
        Registration {
            service: service.to_owned(),
            url: String::from(url).into(),
            username,
            password,
        }
    }

    /// Where the callbacks of a service go, and by which registration.
    pub(super) fn judge<'l>(
        &self,
        account: &AccountName,
        service: &str,
        listed: &'l [Registration],
    ) -> (Standing, Option<&'l Registration>) {
        let mut standing = (Standing::Missing, None);
        let same = |one: &&Registration| one.service.eq_ignore_ascii_case(service);
        for one in listed.iter().filter(same) {
            if !self.is_here(account, service, &one.url) {
                return (Standing::Elsewhere, Some(one));
            }
            let here = match self.is_login(one) {
                true => Standing::Here,
                false => Standing::OtherLogin,
            };
            standing = (here, Some(one));
        }
        standing
    }

    /// With and without the account: the listener takes both.
    fn paths(&self, account: &AccountName, service: &str) -> [Url; 2] {
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

    fn is_here(&self, account: &AccountName, service: &str, url: &SecretString) -> bool {
        // Read as a URL, so that case and default ports make no difference.
        let Ok(url) = Url::parse(url.expose_secret()) else {
            return false;
        };
        self.paths(account, service).iter().any(|own| {
            let rest = url.as_str().strip_prefix(own.as_str());
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
    fn is_login(&self, listed: &Registration) -> bool {
        let Some((username, password)) = &self.login else {
            return true;
        };
        let same = |listed: &Option<SecretString>, own: &SecretString| {
            let listed = listed.as_ref().map(ExposeSecret::expose_secret);
            listed == Some(own.expose_secret())
        };
        same(&listed.username, username) && same(&listed.password, password)
    }
}

// === impl Standing ===

impl Standing {
    pub(super) const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Here,
        Self::OtherLogin,
        Self::Elsewhere,
        Self::Missing,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Here => "here",
            Self::OtherLogin => "other_credentials",
            Self::Elsewhere => "elsewhere",
            Self::Missing => "missing",
        }
    }
}

/// What may be shown of an address that is somebody's: scheme, host and port. The rest may have
/// secrets in it.
pub(super) fn place(url: &SecretString) -> String {
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

    fn own(path_secret: Option<&str>, login: bool) -> Own {
        Own {
            public_url: "https://callbacks.example.com/edge/".parse().unwrap(),
            path_secret: path_secret.map(SecretString::from),
            login: login.then(|| ("user".into(), "word".into())),
        }
    }

    fn listed(url: &str, login: Option<(&str, &str)>) -> Registration {
        let (username, password) = login.unzip();
        Registration {
            service: "CarrierService".into(),
            url: url.into(),
            username: username.map(SecretString::from),
            password: password.map(SecretString::from),
        }
    }

    fn standing(own: &Own, one: Registration) -> Standing {
        own.judge(&account(), "CarrierService", &[one]).0
    }

    #[test]
    fn what_is_registered_is_the_path_with_the_account_below_the_public_url() {
        let registration = own(Some(SECRET), true).registration(&account(), "CarrierService");
        assert_eq!(
            registration.url.expose_secret(),
            "https://callbacks.example.com/edge/accounts/0000123456-00001/callbacks/\
             CarrierService/planted-path-secret"
        );
        assert!(!format!("{registration:?}").contains("planted"));
        let own = own(Some(SECRET), true);
        assert_eq!(standing(&own, registration), Standing::Here);
    }

    #[test]
    fn here_is_each_address_that_the_listener_takes_and_no_other() {
        let base = "https://callbacks.example.com/edge";
        let with = own(Some(SECRET), false);
        for url in [
            format!("{base}/callbacks/CarrierService/{SECRET}"),
            format!(
                "HTTPS://Callbacks.Example.com:443/edge/accounts/0000123456-00001/callbacks/\
                 CarrierService/{SECRET}"
            ),
        ] {
            assert_eq!(standing(&with, listed(&url, None)), Standing::Here, "{url}");
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
            let standing = standing(&with, listed(&url, None));
            assert_eq!(standing, Standing::Elsewhere, "{url}");
        }
        let without = own(None, false);
        for (rest, expected) in [
            ("", Standing::Here),
            ("/anything", Standing::Here),
            ("/any/thing", Standing::Elsewhere),
            ("More", Standing::Elsewhere),
        ] {
            let url = format!("{base}/callbacks/CarrierService{rest}");
            assert_eq!(standing(&without, listed(&url, None)), expected, "{url}");
        }
    }

    #[test]
    fn another_password_is_told_apart_where_one_is_set() {
        let url = format!("https://callbacks.example.com/edge/callbacks/CarrierService/{SECRET}");
        let with = own(Some(SECRET), true);
        for (login, expected) in [
            (Some(("user", "word")), Standing::Here),
            (Some(("user", "former")), Standing::OtherLogin),
            (None, Standing::OtherLogin),
        ] {
            assert_eq!(standing(&with, listed(&url, login)), expected, "{login:?}");
        }
        let without = own(Some(SECRET), false);
        let standing = standing(&without, listed(&url, Some(("user", "word"))));
        assert_eq!(standing, Standing::Here);
    }

    #[test]
    fn of_somebodys_address_only_scheme_host_and_port_are_shown() {
        let shown = place(&"https://u:p@old.example.com:9002/token-1?key=2#3".into());
        assert_eq!(shown, "https://old.example.com:9002");
        assert_eq!(place(&"what a secret".into()), "something that is no URL");
    }
}
