//! What a sandbox is started with.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use url::Url;

/// What a sandbox is started with.
#[derive(Clone)]
pub struct Settings {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Same seed and same requests: same fates, duplicates and order.
    pub seed: u64,
    /// Time from the answer to a change until its first callback.
    pub callback_delay: Duration,
    /// Time that a change takes to be answered.
    pub response_delay: Duration,
    /// Time that an answer takes which a scenario makes slow.
    pub slow_response_delay: Duration,
    /// Time from a late callback's due time until it is sent.
    pub late_delay: Duration,
    /// Time from an interim callback until the final one.
    pub interim_delay: Duration,
    /// What follows when nobody takes a callback.
    pub resend: ResendPolicy,
    /// Factor for the times of `resend`.
    pub time_scale: f64,
    /// Time from a refused callback until it is sent again, in place of the one
    /// of `resend`.
    pub resend_delay: Option<Duration>,
    /// Time without an answer after which a callback is sent again, while the
    /// first is still under way, in place of the one of `resend`.
    pub callback_timeout: Option<Duration>,
    /// How often things go wrong where no scenario says so.
    pub fault_rates: FaultRates,
    /// The order in which a change's devices are told about.
    pub callback_order: CallbackOrder,
    /// Listener for accounts that registered none; `{service}` in it stands for
    /// the callback service's name. Without it their callbacks are lost, as on
    /// the platform.
    pub callback_url: Option<Url>,
    /// What callbacks to `callback_url` carry.
    pub callback_credentials: Option<CallbackCredentials>,
    /// Most callbacks in flight.
    pub callback_concurrency: usize,
    /// Whether listeners that are not on loopback may have any port.
    pub any_callback_port: bool,
    /// Time for which callbacks still carry a listener's former credentials.
    pub credentials_lag: Duration,
    /// The credentials that are accepted.
    pub credentials: AcceptedCredentials,
    /// How long an access token lives, from its first issue.
    pub token_lifetime: Duration,
    /// How long a session lives without being used.
    pub session_lifetime: Duration,
    /// Whether a log-in ends the user's earlier session.
    pub single_session: bool,
    /// Most calls of the API in a minute; 0 for any number.
    pub requests_per_minute: u32,
    /// The plan of a device that nobody changed yet.
    pub initial_plan: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8900)),
            seed: 1,
            callback_delay: Duration::from_millis(500),
            response_delay: Duration::from_millis(50),
            slow_response_delay: Duration::from_secs(5),
            late_delay: Duration::from_secs(10),
            interim_delay: Duration::from_secs(1),
            resend: ResendPolicy::Quick,
            time_scale: 1.0,
            resend_delay: None,
            callback_timeout: None,
            fault_rates: FaultRates::default(),
            callback_order: CallbackOrder::AsSent,
            callback_url: None,
            callback_credentials: None,
            callback_concurrency: 32,
            any_callback_port: false,
            credentials_lag: Duration::ZERO,
            credentials: AcceptedCredentials::default(),
            token_lifetime: Duration::from_secs(3600),
            session_lifetime: Duration::from_secs(20 * 60),
            single_session: false,
            requests_per_minute: 0,
            initial_plan: "Sandbox Initial Plan".to_owned(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the callback address: it may carry a secret in its path.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("listen", &self.listen)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(crate) fn check(&self) -> io::Result<()> {
        let problem = if !self.fault_rates.all().iter().all(is_rate) {
            "shares must be between 0 and 1"
        } else if !(0.0..=1000.0).contains(&self.time_scale) {
            "time_scale must be between 0 and 1000"
        } else if !(1..=10_000).contains(&self.callback_concurrency) {
            "callback_concurrency must be between 1 and 10000"
        } else if self.initial_plan.is_empty() {
            "initial_plan must not be empty"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }

    /// What follows when nobody takes a callback, in this sandbox's time.
    pub(crate) fn resend_timing(&self) -> ResendTiming {
        let policy = self.resend.timing();
        let scaled = |time: Duration| time.mul_f64(self.time_scale);
        ResendTiming {
            max_attempts: policy.max_attempts,
            resend_delay: self
                .resend_delay
                .unwrap_or_else(|| scaled(policy.resend_delay)),
            callback_timeout: self
                .callback_timeout
                .or_else(|| policy.callback_timeout.map(scaled)),
        }
    }
}

fn is_rate(share: &f64) -> bool {
    (0.0..=1.0).contains(share)
}

/// How often things go wrong, each from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default)]
pub struct FaultRates {
    /// Devices whose change fails.
    pub failure: f64,
    /// Callbacks that are sent twice.
    pub duplicate: f64,
    /// Callbacks that are never sent.
    pub lost: f64,
    /// Callbacks that come before the request's answer.
    pub early: f64,
    /// Callbacks that come `late_delay` after their time.
    pub late: f64,
    /// Callbacks that cannot be read.
    pub malformed: f64,
    /// Requests whose connection is dropped before they are executed.
    pub drop_request: f64,
    /// Requests whose connection is dropped after they were executed.
    pub drop_response: f64,
    /// Requests that are answered with 5xx; about half of them are executed.
    pub error: f64,
}

impl FaultRates {
    fn all(&self) -> [f64; 9] {
        [
            self.failure,
            self.duplicate,
            self.lost,
            self.early,
            self.late,
            self.malformed,
            self.drop_request,
            self.drop_response,
            self.error,
        ]
    }
}

/// The order in which the callbacks of one change are sent. It is exact with one
/// callback in flight, and the order of departure with more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallbackOrder {
    /// As the devices were listed in the request.
    #[default]
    AsSent,
    /// The last device first.
    Reversed,
    /// At random, decided by the seed.
    Shuffled,
}

/// What follows when nobody takes a callback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResendPolicy {
    /// The documented number of tries in the measured pace: three more, a second
    /// apart.
    #[default]
    Quick,
    /// As measured on the platform: one more after 1.3 s, then nothing.
    Measured,
    /// As documented: three more, five minutes apart.
    Documented,
}

/// The numbers of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResendTiming {
    /// How often a callback is sent in all.
    pub(crate) max_attempts: u32,
    /// From a refusal until it is sent again.
    pub(crate) resend_delay: Duration,
    /// Without an answer for so long, it is sent again while the first copy is
    /// still under way. None: the pages say nothing of a limit.
    pub(crate) callback_timeout: Option<Duration>,
}

impl ResendPolicy {
    /// Documented by About Callback Services and its best practices; measured by
    /// F-PIDGE B6 (1.15 to 1.69 s, then nothing for 3 hours) and 13.3 (4 s).
    fn timing(self) -> ResendTiming {
        match self {
            Self::Quick => ResendTiming {
                max_attempts: 4,
                resend_delay: Duration::from_secs(1),
                callback_timeout: Some(Duration::from_secs(4)),
            },
            Self::Measured => ResendTiming {
                max_attempts: 2,
                resend_delay: Duration::from_millis(1300),
                callback_timeout: Some(Duration::from_secs(4)),
            },
            Self::Documented => ResendTiming {
                max_attempts: 4,
                resend_delay: Duration::from_secs(5 * 60),
                callback_timeout: None,
            },
        }
    }
}

/// The credentials of the two log-ins. What is not set may be anything that is
/// not empty.
#[derive(Clone, Default)]
pub struct AcceptedCredentials {
    /// Key of the application, first half of the token request's Basic header.
    pub app_key: Option<String>,
    /// Secret of the application.
    pub app_secret: Option<String>,
    /// User name of the session log-in.
    pub uws_username: Option<String>,
    /// Password of the session log-in.
    pub uws_password: Option<String>,
}

impl fmt::Debug for AcceptedCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(hidden)")
    }
}

/// User name and password in the body of a callback.
#[derive(Clone)]
pub struct CallbackCredentials {
    /// The `username` member.
    pub username: String,
    /// The `password` member.
    pub password: String,
}

impl fmt::Debug for CallbackCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallbackLogin(hidden)")
    }
}
