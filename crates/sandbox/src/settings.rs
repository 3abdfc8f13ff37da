//! The settings of a sandbox. The settings of the gateway are their only source of defaults.

use std::{net::SocketAddr, time::Duration};

use url::Url;

/// The settings of a sandbox.
#[derive(Clone)]
pub struct Settings {
    /// Address and port. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// Seed of all random decisions.
    pub seed: u64,
    /// Delay between the response to a change and its first callback.
    pub callback_delay: Duration,
    /// Delay of the response to a change.
    pub response_delay: Duration,
    /// The same delay for the scenario `slow_answer`.
    pub slow_response_delay: Duration,
    /// Additional delay of a late callback.
    pub late_delay: Duration,
    /// Delay between an interim callback and the final one.
    pub interim_delay: Duration,
    /// When a callback is sent again.
    pub resend: ResendPolicy,
    /// Delay until a rejected callback is sent again. Overrides `resend`.
    pub resend_delay: Option<Duration>,
    /// Time without a response after which a callback is sent again while the first attempt is in
    /// flight. Overrides `resend`.
    pub callback_timeout: Option<Duration>,
    /// Rates of random faults, for devices and requests without a scenario.
    pub fault_rates: FaultRates,
    /// Order of the callbacks of a change.
    pub callback_order: CallbackOrder,
    /// Callback URL of accounts that registered none. `{service}` stands for the name of the
    /// callback service. Without a URL, their callbacks are not sent.
    pub callback_url: Option<Url>,
    /// Maximum number of callbacks in flight, at least 1.
    pub callback_concurrency: usize,
    /// Allows any port in callback URLs that are not on loopback.
    pub any_callback_port: bool,
    /// Time for which callbacks carry the previous credentials after a new registration.
    pub credentials_lag: Duration,
    /// The credentials that token requests and log-ins must have.
    pub credentials: AcceptedCredentials,
    /// Lifetime of an access token, from its first issue.
    pub token_lifetime: Duration,
    /// Lifetime of a session without use.
    pub session_lifetime: Duration,
    /// Ends the previous session of a user at each log-in.
    pub single_session: bool,
    /// Maximum number of M2M calls in a minute. 0: no limit.
    pub requests_per_minute: u32,
    /// Plan of a device before its first change.
    pub initial_plan: String,
}

impl Settings {
    /// Returns the times of the resend policy, with their overrides.
    pub(crate) fn resend_timing(&self) -> ResendTiming {
        let measured_timeout = Some(Duration::from_secs(4));
        let (max_attempts, resend_delay, callback_timeout) = match self.resend {
            ResendPolicy::Quick => (4, Duration::from_secs(1), measured_timeout),
            ResendPolicy::Measured => (2, Duration::from_millis(1300), measured_timeout),
            ResendPolicy::Documented => (4, Duration::from_secs(5 * 60), None),
        };
        ResendTiming {
            max_attempts,
            resend_delay: self.resend_delay.unwrap_or(resend_delay),
            callback_timeout: self.callback_timeout.or(callback_timeout),
        }
    }
}

/// Rates of random faults, each from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default)]
pub struct FaultRates {
    /// Devices that fail.
    pub failure: f64,
    /// Callbacks that are sent twice.
    pub duplicate: f64,
    /// Callbacks that are never sent.
    pub lost: f64,
    /// Callbacks that are sent before the response to their request.
    pub early: f64,
    /// Callbacks that are sent `late_delay` late.
    pub late: f64,
    /// Callbacks whose JSON is malformed.
    pub malformed: f64,
    /// Requests that are not executed and whose connection is closed.
    pub drop_request: f64,
    /// Requests that are executed and whose connection is closed.
    pub drop_response: f64,
    /// Requests with the response 500. About half of them are executed.
    pub error: f64,
}

/// Order of the callbacks of a change. With one callback in flight, they arrive in this order;
/// otherwise only their sending starts in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackOrder {
    /// The order of the devices in the request.
    AsSent,
    /// The last device first.
    Reversed,
    /// Random.
    Shuffled,
}

/// When a callback is sent again (see thingspace-facts, section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResendPolicy {
    /// The documented number of attempts with the measured timeout: three more, one second apart.
    Quick,
    /// As measured on ThingSpace: one more after 1.3 s.
    Measured,
    /// As documented: three more, five minutes apart.
    Documented,
}

/// The times of a resend policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResendTiming {
    pub(crate) max_attempts: u32,
    /// Delay between a rejection and the next attempt.
    pub(crate) resend_delay: Duration,
    /// Time without a response after which the next attempt starts. No timeout is documented.
    pub(crate) callback_timeout: Option<Duration>,
}

/// The credentials of token requests and log-ins. An unset one accepts any value that is not empty.
#[derive(Clone, Default)]
pub struct AcceptedCredentials {
    /// Key of the application.
    pub app_key: Option<String>,
    /// Secret of the application.
    pub app_secret: Option<String>,
    /// User name of the session log-in.
    pub uws_username: Option<String>,
    /// Password of the session log-in.
    pub uws_password: Option<String>,
}
