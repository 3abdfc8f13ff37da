//! What the listener is told.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;

/// A secret that may change while the listener runs.
pub trait SecretSource: Send + Sync + 'static {
    /// The secret as it is now. Called for every request on the threads that
    /// serve all others, so it must not block: a source that reads a file
    /// answers with what it last read.
    fn current(&self) -> Arc<SecretString>;
}

/// A user name and a password, as registered at ThingSpace.
#[derive(Clone)]
pub struct CallbackCredentials {
    /// The user name.
    pub username: Arc<dyn SecretSource>,
    /// The password.
    pub password: Arc<dyn SecretSource>,
}

/// What happens to a callback from an address outside the allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllowMode {
    /// It is judged as any other, and reported when it is stored: Verizon
    /// changes its list of addresses ("About Callback Services").
    #[default]
    Report,
    /// It is refused.
    Enforce,
}

/// Where the certificate is.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM file with the certificate and those between it and its authority.
    pub certificates: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What the listener is told.
#[derive(Clone)]
pub struct CallbackSettings {
    /// Last segment of the registered path. None: whatever stands there is
    /// ignored.
    pub path_secret: Option<Arc<dyn SecretSource>>,
    /// The pair that callbacks carry in their bodies.
    pub credentials: Option<CallbackCredentials>,
    /// The pair that was registered before: it kept arriving for 14 minutes
    /// after a change ("Adding a NIDD connector through Verizon ThingSpace").
    pub previous_credentials: Option<CallbackCredentials>,
    /// Services whose callbacks must carry a pair, once one is set.
    pub require_password: Vec<String>,
    /// Networks that callbacks come from. Empty: all.
    pub allow_cidrs: Vec<IpNet>,
    /// What happens to those from elsewhere.
    pub allow_mode: AllowMode,
    /// Trusted proxies in front: the source is this entry of `X-Forwarded-For`,
    /// counted from the right. 0: the source is whoever has connected.
    pub trusted_hops: u8,
    /// None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Bytes that are kept of callbacks that cannot be used.
    pub quarantine_max_bytes: u64,
    /// Bytes of callbacks that are being received or stored, all together.
    pub max_inflight_body_bytes: usize,
    /// How many callbacks may wait to be passed on; `None` when none are.
    pub max_queued_forwards: Option<u64>,
    /// Time from the end of a request's header to its answer, at most.
    pub response_timeout: Duration,
}

// === impl SecretSource ===

/// A secret that never changes.
impl SecretSource for SecretString {
    fn current(&self) -> Arc<SecretString> {
        Arc::new(self.clone())
    }
}

// === impl Settings ===

impl Default for CallbackSettings {
    /// Lets everybody in: no secret, no pair, any address.
    fn default() -> Self {
        Self {
            path_secret: None,
            credentials: None,
            previous_credentials: None,
            require_password: vec!["CarrierService".to_owned()],
            allow_cidrs: Vec::new(),
            allow_mode: AllowMode::default(),
            trusted_hops: 0,
            tls: None,
            quarantine_max_bytes: 64 << 20,
            max_inflight_body_bytes: 32 << 20,
            max_queued_forwards: None,
            // ThingSpace was seen to send again after about 4 s without answer; 3.5 s are promised, of
            // which a quarter of a second is for the way back out of a machine that is busy.
            response_timeout: Duration::from_millis(3_250),
        }
    }
}
