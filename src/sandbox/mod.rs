//! A ThingSpace that runs anywhere.
//!
//! It imitates the part of Verizon's Connectivity Management API that the gateway
//! uses: tokens, sessions, callback listeners, both plan changes and their
//! callbacks. It shares no code with the gateway's client, so that it catches its
//! mistakes. A seed makes a run repeatable; a ledger says what was executed.
//! `docs/sandbox.md` is the manual.

mod auth;
mod callbacks;
mod changes;
mod delivery;
mod errors;
mod fate;
mod identifiers;
mod ledger;
mod message;
mod platform;
mod routes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use url::Url;

use platform::Platform;

/// How long a stopping sandbox waits for what it has begun.
const DRAIN: Duration = Duration::from_secs(5);

/// What a sandbox is started with.
#[derive(Clone)]
pub struct Settings {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Same seed and same requests: same failures, duplicates and order.
    pub seed: u64,
    /// Time from the answer to a change until its first callback.
    pub callback_delay: Duration,
    /// Time that a change takes to be answered.
    pub answer_delay: Duration,
    /// Time from a refused callback until it is sent again.
    pub resend_after: Duration,
    /// Time without an answer after which a callback is sent again, while the
    /// first is still under way.
    pub patience: Duration,
    /// Share of the devices whose change fails, 0 to 1.
    pub failure_share: f64,
    /// Share of the callbacks that are sent twice, 0 to 1.
    pub duplicate_share: f64,
    /// The order in which a change's devices are told about.
    pub order: CallbackOrder,
    /// Listener for accounts that registered none; `{service}` in it stands for
    /// the callback service's name. Without it their callbacks are lost, as on
    /// the platform.
    pub callback_url: Option<Url>,
    /// What callbacks to `callback_url` carry.
    pub callback_login: Option<CallbackLogin>,
    /// Most callbacks in flight.
    pub callback_concurrency: usize,
    /// The credentials that are accepted. None: any that are not empty.
    pub credentials: Option<Credentials>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8900)),
            seed: 1,
            callback_delay: Duration::from_millis(500),
            answer_delay: Duration::from_millis(50),
            resend_after: Duration::from_secs(1),
            patience: Duration::from_secs(4),
            failure_share: 0.0,
            duplicate_share: 0.0,
            order: CallbackOrder::AsSent,
            callback_url: None,
            callback_login: None,
            callback_concurrency: 32,
            credentials: None,
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
    fn check(&self) -> io::Result<()> {
        let shares = [self.failure_share, self.duplicate_share];
        let problem = if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            "failure_share and duplicate_share must be between 0 and 1"
        } else if !(1..=10_000).contains(&self.callback_concurrency) {
            "callback_concurrency must be between 1 and 10000"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
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

/// The credentials of the two log-ins.
#[derive(Clone)]
pub struct Credentials {
    /// Key of the application, first half of the token request's Basic header.
    pub app_key: String,
    /// Secret of the application.
    pub app_secret: String,
    /// User name of the session log-in.
    pub uws_username: String,
    /// Password of the session log-in.
    pub uws_password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(hidden)")
    }
}

/// User name and password in the body of a callback.
#[derive(Clone)]
pub struct CallbackLogin {
    /// The `username` member.
    pub username: String,
    /// The `password` member.
    pub password: String,
}

impl fmt::Debug for CallbackLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallbackLogin(hidden)")
    }
}

/// A ThingSpace with its port bound, ready to run.
pub struct Sandbox {
    listener: TcpListener,
    local_addr: SocketAddr,
    base_url: Url,
    platform: Arc<Platform>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sandbox")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Checks the settings and binds the port.
    ///
    /// # Errors
    ///
    /// A setting out of its range is `InvalidInput`; else what binding says.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        settings.check()?;
        let listener = TcpListener::bind(settings.listen).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self {
            base_url: base_url(local_addr)?,
            local_addr,
            listener,
            platform: Platform::new(settings)?,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What a client on this machine takes as its base URL: `http://address/api`.
    #[must_use]
    pub fn base_url(&self) -> Url {
        self.base_url.clone()
    }

    /// Serves until `shutdown` is over, then finishes what was begun, for five
    /// seconds at most. Callbacks that wait for their time are not sent any more.
    ///
    /// # Errors
    ///
    /// What serving the port says.
    pub async fn run<S>(self, shutdown: S) -> io::Result<()>
    where
        S: Future<Output = ()>,
    {
        let platform = self.platform;
        tracing::info!(address = %self.local_addr, seed = platform.settings.seed, "sandbox listens");
        let begun = platform.stop.clone();
        let server = axum::serve(self.listener, routes::router(Arc::clone(&platform)))
            .with_graceful_shutdown(begun.clone().cancelled_owned());
        let mut server = std::pin::pin!(server.into_future());
        let served = tokio::select! {
            served = &mut server => Some(served),
            () = shutdown => None,
        };
        begun.cancel();
        let served = match served {
            Some(served) => {
                platform.drain(DRAIN).await;
                served
            }
            None => {
                let (served, ()) = tokio::join!(timeout(DRAIN, server), platform.drain(DRAIN));
                served.unwrap_or(Ok(()))
            }
        };
        platform.abort().await;
        served
    }
}

/// The unspecified address is no place to connect to everywhere: say loopback.
fn base_url(mut address: SocketAddr) -> io::Result<Url> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{address}/api")).map_err(io::Error::other)
}
