//! The settings of a sandbox, a group of the program's settings.

use std::{net::SocketAddr, time::Duration};

use thingspace_settings::{
    Description, DurationRange, HttpUrl, Kind, Number, Secret, SecretFormat, SocketAddress, Switch,
    choices, one_of, settings_group, toml_string,
};
use url::Url;

/// A credential of token requests and log-ins.
const CREDENTIAL: SecretFormat = SecretFormat::text(1024);

settings_group! {
    /// The sandbox, for the commands `sandbox` and `serve --sandbox`.
    sandbox: Settings {
        /// Address and port of the sandbox. Port 0 selects a free port.
        listen: SocketAddr = WithDefault(SocketAddress) or "127.0.0.1:0";
        /// Seed of all random decisions of the sandbox. The same seed repeats a run.
        seed: u64 = WithDefault(Number { min: 0, max: u64::MAX }) or "0";
        /// Delay between the response to a change and its first callback.
        callback_delay: Duration = WithDefault(DurationRange { min: "0s", max: "1h" }) or "0s";
        /// Delay of the response to a change.
        answer_delay: Duration = WithDefault(DurationRange { min: "0s", max: "1h" }) or "0s";
        /// Delay of the response to a change with a device of the scenario `slow_answer`.
        slow_answer: Duration = WithDefault(DurationRange { min: "0s", max: "1h" }) or "5s";
        /// Additional delay of late callbacks: those of `sandbox.late_rate` and of the scenario
        /// `late`.
        late_delay: Duration = WithDefault(DurationRange { min: "0s", max: "7d" }) or "10s";
        /// Delay between an interim callback, such as `warning`, and the final one.
        interim_for: Duration = WithDefault(DurationRange { min: "0s", max: "1d" }) or "1s";
        /// Fraction of devices that fail, from 0 (none) to 1 (all).
        failure_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of callbacks that are sent twice, from 0 (none) to 1 (all).
        duplicate_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of callbacks that are never sent, although the change was executed.
        lost_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of callbacks that are sent `sandbox.late_delay` late.
        late_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of callbacks that are sent before the response to their request. The response
        /// waits for them, 10 s at most.
        early_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of callbacks that are malformed: the JSON is truncated, lacks its opening
        /// brace, or has no `requestId`.
        malformed_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of changes that are not executed and whose connection is closed.
        drop_request_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of changes that are executed and whose connection is closed without a response.
        drop_answer_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Fraction of changes with the response 500. About half of them are executed; the seed
        /// decides.
        error_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
        /// Order in which the callbacks of a request are sent: as its devices, reversed, or at
        /// random.
        order: CallbackOrder = WithDefault(one_of::<CallbackOrder>()) or "as_sent";
        /// Plan of a device before its first change.
        initial_plan: String = WithDefault(PlanName) or "Sandbox Initial Plan";
        /// Callback URL for accounts that registered none. Unset: their callbacks are not sent.
        callback_url: Option<Url> = Optional(HttpUrl);
        /// Retries of a callback that was not delivered. `quick`: three, one second apart.
        /// `measured`: one after 1.3 s, as measured on ThingSpace. `documented`: three, five
        /// minutes apart. With `quick` and `measured`, a second copy follows if the listener does
        /// not respond within 4 s, while the first request is still in progress.
        resend: ResendPolicy = WithDefault(one_of::<ResendPolicy>()) or "quick";
        /// Delay until a rejected callback is sent again. Unset: as in `sandbox.resend`.
        resend_after: Option<Duration> = Optional(DurationRange { min: "0s", max: "1h" });
        /// Time without a response after which a callback is sent again while the first request is
        /// still in progress. Unset: as in `sandbox.resend`.
        callback_timeout: Option<Duration> = Optional(DurationRange { min: "10ms", max: "1h" });
        /// Maximum number of callbacks in progress.
        callback_concurrency: usize = WithDefault(Number { min: 1, max: 1024 }) or "32";
        /// Allows callback URLs that are not on loopback to have any port. By default, they must
        /// have a port that ThingSpace calls: 80, 443, 9001 to 9006, 50551 to 50559 and 28200 to
        /// 28220.
        any_callback_port: bool = WithDefault(Switch) or "false";
        /// Time for which callbacks carry the previous user name and password after a new
        /// registration. On ThingSpace, 14 minutes were measured.
        credentials_lag: Duration = WithDefault(DurationRange { min: "0s", max: "1h" }) or "0s";
        /// Key that token requests must have. Unset: any key.
        app_key: Option<Secret> = Sensitive(CREDENTIAL);
        /// Secret that token requests must have. Unset: any secret.
        app_secret: Option<Secret> = Sensitive(CREDENTIAL);
        /// User name that log-ins must have. Unset: any user name.
        uws_username: Option<Secret> = Sensitive(CREDENTIAL);
        /// Password that log-ins must have. Unset: any password. Five wrong passwords in a row lock
        /// the user until the sandbox restarts.
        uws_password: Option<Secret> = Sensitive(CREDENTIAL);
        /// Lifetime of an access token, from its first issue.
        token_lifetime: Duration = WithDefault(DurationRange { min: "1s", max: "1d" }) or "1h";
        /// Lifetime of a session without use.
        session_lifetime: Duration = WithDefault(DurationRange { min: "100ms", max: "1d" }) or "20m";
        /// Ends the previous session of a user at each log-in. It is not known whether ThingSpace
        /// does so.
        single_session: bool = WithDefault(Switch) or "false";
        /// Maximum number of M2M calls in a minute, including log-ins. Further calls get 429 and
        /// `Retry-After`. 0: no limit.
        requests_per_minute: u32 = WithDefault(Number { min: 0, max: 1_000_000 }) or "0";
    }
}

choices! {
    /// Values of `sandbox.order`. With one callback in flight, callbacks arrive in this order;
    /// otherwise only their sending starts in this order.
    CallbackOrder { AsSent = "as_sent", Reversed = "reversed", Shuffled = "shuffled" }

    /// Values of `sandbox.resend` (see docs/thingspace-facts.md, section 4.4).
    ResendPolicy { Quick = "quick", Measured = "measured", Documented = "documented" }
}

/// Name or code of a service plan.
struct PlanName;

impl Kind for PlanName {
    type Value = String;
    fn describe(&self) -> Description {
        let accepts = "1 to 128 characters, none of them `'`, `<`, `\\` or a control character";
        Description::scalar(accepts, "PLAN")
    }
    fn parse(&self, text: &str) -> Option<String> {
        let is_invalid = |c: char| c.is_control() || matches!(c, '\'' | '<' | '\\');
        let is_plan = text.chars().count() <= 128 && !text.trim().is_empty();
        (is_plan && !text.contains(is_invalid)).then(|| text.to_owned())
    }
    fn toml(&self, value: &String) -> String {
        toml_string(value)
    }
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
            resend_delay: self.resend_after.unwrap_or(resend_delay),
            callback_timeout: self.callback_timeout.or(callback_timeout),
        }
    }
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
