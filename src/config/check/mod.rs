//! What several settings say together, for what is about to run.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::error::ConfigError;
use super::secret::Secret;
use super::settings::Config;
use thingspace_loopback::{is_loopback_ip, is_loopback_url};

mod forward;
mod registration;

/// What is about to run: not all of it wants the same settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `serve`: the gateway in front of ThingSpace.
    Serve,
    /// `serve --sandbox`: the gateway together with a sandbox.
    ServeSandbox,
    /// `sandbox`: a sandbox alone.
    Sandbox,
}

/// The host of Verizon's own service.
const PRODUCTION_HOST: &str = "thingspace.verizon.com";

/// The callback services whose results the gateway understands.
const KNOWN_SERVICES: [&str; 2] = ["CarrierService", "DeviceProfileService"];

type Check = Result<(), ConfigError>;

impl Config {
    /// Takes on the defaults of the mode (a loopback `callbacks.listen` for
    /// [`Mode::ServeSandbox`]), then judges the settings together. What comes back on success are
    /// warnings, one line each.
    ///
    /// # Errors
    ///
    /// The first combination that must not start.
    pub fn check_for(&mut self, mode: Mode) -> Result<Vec<String>, ConfigError> {
        self.apply_mode_defaults(mode);
        let mut warnings = Vec::new();
        match mode {
            // The gateway's settings may stand in the file that a lone sandbox shares: they are not its.
            Mode::Sandbox => {}
            Mode::Serve => {
                self.require_credentials()?;
                self.check_gateway()?;
                self.check_exposed_listener()?;
                self.check_registration(mode)?;
                self.check_auth_mode()?;
                self.warn_of_thingspace(&mut warnings);
                self.warn_of_callbacks(&mut warnings)?;
                self.warn_about_registration(mode, &mut warnings);
                self.check_forwarding(&mut warnings)?;
            }
            Mode::ServeSandbox => {
                self.refuse_real_thingspace()?;
                self.check_gateway()?;
                self.check_registration(mode)?;
                self.warn_of_callbacks(&mut warnings)?;
                self.warn_about_registration(mode, &mut warnings);
                self.check_forwarding(&mut warnings)?;
            }
        }
        Ok(warnings)
    }

    /// The defaults that differ from the documented ones in this mode.
    pub(super) fn apply_mode_defaults(&mut self, mode: Mode) {
        if mode == Mode::ServeSandbox && !self.is_set("callbacks.listen") {
            self.callbacks.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        }
        // What is Verizon's limit is not the sandbox's: tests should not wait for it.
        if mode == Mode::ServeSandbox && !self.is_set("thingspace.changes_per_minute") {
            self.thingspace.changes_per_minute = 100_000;
        }
    }

    // === What must not start ===

    fn credentials(&self) -> [(&'static str, &Option<Secret>); 4] {
        let thingspace = &self.thingspace;
        [
            ("thingspace.app_key", &thingspace.app_key),
            ("thingspace.app_secret", &thingspace.app_secret),
            ("thingspace.uws_username", &thingspace.uws_username),
            ("thingspace.uws_password", &thingspace.uws_password),
        ]
    }

    fn require_credentials(&self) -> Check {
        match self
            .credentials()
            .iter()
            .find(|(_, secret)| secret.is_none())
        {
            None => Ok(()),
            Some((key, _)) => {
                let fault = format!(
                    "not set, expected it or {key}_file (`serve --sandbox` runs without credentials)"
                );
                Err(self.fault(key, &fault))
            }
        }
    }

    fn refuse_real_thingspace(&self) -> Check {
        let credentials = self.credentials().map(|(key, _)| key);
        let set = |key: &&str| self.is_set(key);
        match credentials
            .iter()
            .copied()
            .chain(["thingspace.base_url"])
            .find(set)
        {
            None => Ok(()),
            Some(key) => Err(self.fault(
                key,
                "set, expected unset with `serve --sandbox`, which calls only its own sandbox",
            )),
        }
    }

    fn check_gateway(&self) -> Check {
        let callbacks = &self.callbacks;
        let pair = |a, a_set: bool, b, b_set: bool| match (a_set, b_set) {
            (true, false) => {
                Err(self.fault(a, &format!("set without {b}, expected both or neither")))
            }
            (false, true) => {
                Err(self.fault(b, &format!("set without {a}, expected both or neither")))
            }
            _ => Ok(()),
        };
        pair(
            "callbacks.username",
            callbacks.username.is_some(),
            "callbacks.password",
            callbacks.password.is_some(),
        )?;
        pair(
            "callbacks.previous_username",
            callbacks.previous_username.is_some(),
            "callbacks.previous_password",
            callbacks.previous_password.is_some(),
        )?;
        pair(
            "callbacks.tls_cert_file",
            callbacks.tls_cert_file.is_some(),
            "callbacks.tls_key_file",
            callbacks.tls_key_file.is_some(),
        )?;
        if callbacks.previous_username.is_some() && callbacks.username.is_none() {
            return Err(self.fault(
                "callbacks.previous_username",
                "set without callbacks.username, expected the present pair too",
            ));
        }
        if self.grpc.max_stream_age >= self.grpc.max_connection_age {
            let age = super::kind::format_duration(self.grpc.max_stream_age);
            let limit = super::kind::format_duration(self.grpc.max_connection_age);
            let fault = format!("got {age}, expected less than grpc.max_connection_age ({limit})");
            return Err(self.fault("grpc.max_stream_age", &fault));
        }
        self.check_retention()?;
        self.check_limits()
    }

    /// A change whose outcome is unknown keeps its key until it is closed.
    fn check_retention(&self) -> Check {
        let (retention, close_after) = (self.journal.retention, self.changes.close_after);
        if retention >= close_after {
            return Ok(());
        }
        let got = super::kind::format_duration(retention);
        let least = super::kind::format_duration(close_after);
        let fault = format!(
            "got {got}, expected at least changes.close_after ({least}): the key of a change must \
             not be free before the change is closed"
        );
        Err(self.fault("journal.retention", &fault))
    }

    /// One call must always find room when there is no other.
    fn check_limits(&self) -> Check {
        let limits = &self.limits;
        let devices = usize::try_from(self.changes.max_devices_per_request).unwrap_or(usize::MAX);
        for (key, limit, other, least) in [
            (
                "limits.devices",
                limits.devices,
                "changes.max_devices_per_request",
                devices,
            ),
            (
                "limits.message_bytes",
                limits.message_bytes,
                "grpc.max_message_bytes",
                self.grpc.max_message_bytes,
            ),
        ] {
            if limit < least {
                let fault = format!("got {limit}, expected at least {other} ({least})");
                return Err(self.fault(key, &fault));
            }
        }
        Ok(())
    }

    fn check_exposed_listener(&self) -> Check {
        let callbacks = &self.callbacks;
        let guarded = callbacks.path_secret.is_some() || callbacks.password.is_some();
        if guarded || callbacks.insecure || is_loopback_ip(callbacks.listen.ip()) {
            return Ok(());
        }
        let fault = format!(
            "got {}, which others can reach, expected callbacks.path_secret or callbacks.password \
             with it, or callbacks.insecure = true",
            callbacks.listen
        );
        Err(self.fault("callbacks.listen", &fault))
    }

    fn check_auth_mode(&self) -> Check {
        let real = self.thingspace.is_production();
        if self.auth.mode.is_some() || !real || is_loopback_ip(self.grpc.listen.ip()) {
            return Ok(());
        }
        let fault = format!(
            "not set, expected `none` written out, because grpc.listen {} lets everybody who can \
             reach it make real changes",
            self.grpc.listen
        );
        Err(self.fault("auth.mode", &fault))
    }

    fn fault(&self, key: &str, fault: &str) -> ConfigError {
        ConfigError::new(key, self.origin(key), fault)
    }

    // === What is odd ===

    fn warn_of_thingspace(&self, warnings: &mut Vec<String>) {
        let url = &self.thingspace.base_url;
        if url.scheme() == "http" && !is_loopback_url(url) {
            warnings.push(format!(
                "thingspace.base_url {url} is plain http: credentials travel in clear"
            ));
        }
        if let Some(key) = self.origins.keys().find(|key| key.starts_with("sandbox.")) {
            warnings.push(format!("{key} has no effect without a sandbox"));
        }
        if self.journal.retention < self.changes.overdue_after {
            warnings.push(
                "journal.retention is shorter than changes.overdue_after: a key may be forgotten \
                 while results of its change can still come"
                    .to_owned(),
            );
        }
    }

    fn warn_of_callbacks(&self, warnings: &mut Vec<String>) -> Check {
        let callbacks = &self.callbacks;
        if callbacks.password.is_none() && self.is_set("callbacks.require_password") {
            warnings.push(
                "callbacks.require_password has no effect without callbacks.password".to_owned(),
            );
        }
        let strange = |name: &&String| !KNOWN_SERVICES.contains(&name.as_str());
        for name in callbacks.require_password.iter().filter(strange) {
            let known = KNOWN_SERVICES.join(" and ");
            warnings.push(format!(
                "callbacks.require_password names {name}, but results come through {known}"
            ));
        }
        let enforced = callbacks.allow_mode == super::AllowMode::Enforce;
        if enforced && callbacks.allow_cidrs.is_empty() {
            warnings.push(
                "callbacks.allow_mode has no effect without callbacks.allow_cidrs".to_owned(),
            );
        }
        self.warn_of_reused_password(warnings)
    }

    /// ThingSpace refuses the UWS credentials for callbacks, and every callback would carry the UWS
    /// password in clear.
    fn warn_of_reused_password(&self, warnings: &mut Vec<String>) -> Check {
        let uws = self.load_secret("thingspace.uws_password", &self.thingspace.uws_password)?;
        let Some(uws) = uws else { return Ok(()) };
        let callbacks = &self.callbacks;
        for (key, secret) in [
            ("callbacks.password", &callbacks.password),
            ("callbacks.previous_password", &callbacks.previous_password),
        ] {
            let equal = |s: SecretString| s.expose_secret() == uws.expose_secret();
            if self.load_secret(key, secret)?.is_some_and(equal) {
                warnings.push(format!(
                    "{key} equals thingspace.uws_password: ThingSpace wants another pair for callbacks"
                ));
            }
        }
        Ok(())
    }

    fn load_secret(
        &self,
        key: &str,
        secret: &Option<Secret>,
    ) -> Result<Option<SecretString>, ConfigError> {
        let value = secret.as_ref().map(Secret::load).transpose();
        value.map_err(|error| self.fault(key, &error.to_string()))
    }
}

impl Config {
    /// Where the admin socket is: `admin.socket`, or else in the journal's directory.
    pub fn admin_socket(&self) -> PathBuf {
        let beside = || self.journal.dir.join("admin.sock");
        self.admin.socket.clone().unwrap_or_else(beside)
    }
}

impl super::ThingSpaceConfig {
    /// Whether this is Verizon's own address, where real devices are changed.
    pub fn is_production(&self) -> bool {
        is_host(&self.base_url, PRODUCTION_HOST)
    }
}

fn is_host(url: &Url, name: &str) -> bool {
    url.host_str()
        .is_some_and(|host| host.trim_end_matches('.') == name)
}
