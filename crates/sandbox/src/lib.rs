//! A ThingSpace that runs anywhere.
//!
//! It imitates the part of Verizon's Connectivity Management API that the gateway
//! uses: tokens, sessions, callback listeners, both plan changes, their callbacks
//! and the look-ups. It shares no code with the gateway's client, so that it
//! catches its mistakes. Reserved identifiers make each situation happen, a seed
//! makes a run repeatable, and a ledger says what was executed.
//! `docs/sandbox.md` is the manual.

mod auth;
mod callback;
mod callback_faults;
mod device_outcome;
mod devices;
mod errors;
mod execute;
mod http;
mod identifiers;
mod json_body;
mod ledger;
mod listeners;
mod one_shot;
mod platform;
mod rate_limiter;
mod request_outcome;
mod scenario;
mod settings;
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

use http::connections::{Connection, DroppableListener};
use platform::Platform;

pub use scenario::{IdentifierPrefix, ScenarioInfo, scenarios, scenarios_markdown};
pub use settings::{
    AcceptedCredentials, CallbackCredentials, CallbackOrder, FaultRates, ResendPolicy, Settings,
};

/// How long a stopping sandbox waits for what it has begun.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

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
        let service = http::routes::router(Arc::clone(&platform))
            .into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(DroppableListener(self.listener), service)
            .with_graceful_shutdown(begun.clone().cancelled_owned());
        let mut server = std::pin::pin!(server.into_future());
        let served = tokio::select! {
            served = &mut server => Some(served),
            () = shutdown => None,
        };
        begun.cancel();
        let served = match served {
            Some(served) => {
                platform.drain(DRAIN_TIMEOUT).await;
                served
            }
            None => {
                let (served, ()) = tokio::join!(
                    timeout(DRAIN_TIMEOUT, server),
                    platform.drain(DRAIN_TIMEOUT)
                );
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
