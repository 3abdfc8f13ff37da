//! A simulator of ThingSpace.
//!
//! It simulates the part of Verizon's Connectivity Management API that the gateway uses: tokens,
//! sessions, callback listeners, changes of devices, their callbacks, and lookups. It shares no code
//! with the gateway's client, so that an error in one does not hide the same error in the other.
//!
//! Reserved identifiers select scenarios, a seed makes a run repeatable, and a ledger lists the
//! executed changes. `docs/sandbox.md` is the manual.

mod auth;
mod callback;
mod callback_faults;
mod clock;
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
mod operations;
mod platform;
mod rate_limiter;
mod request_outcome;
mod scenario;
mod seeded_faults;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, IntoFuture as _},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, time::timeout};
use url::Url;

use http::connections::{Connection, DroppableListener};
use platform::Platform;

pub use scenario::list::{IdentifierPrefix, ScenarioInfo, scenarios, scenarios_markdown};
pub use settings::{AcceptedCredentials, CallbackOrder, FaultRates, ResendPolicy, Settings};

/// Maximum duration of the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A sandbox with a bound port.
pub struct Sandbox {
    listener: TcpListener,
    local_addr: SocketAddr,
    base_url: Url,
    platform: Arc<Platform>,
}

impl Sandbox {
    /// Binds the port.
    ///
    /// # Errors
    ///
    /// The port cannot be bound, or the TLS client of callbacks cannot be built.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self {
            base_url: base_url(local_addr)?,
            local_addr,
            listener,
            platform: Platform::new(settings)?,
        })
    }

    /// Returns the address that the sandbox listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the base URL for clients on this machine: `http://address/api`.
    #[must_use]
    pub fn base_url(&self) -> Url {
        self.base_url.clone()
    }

    /// Serves until `shutdown` completes. Then finishes the requests and callbacks in progress, for
    /// at most five seconds. Callbacks that are not due yet are not sent.
    ///
    /// # Errors
    ///
    /// The error of the server.
    pub async fn run<S>(self, shutdown: S) -> io::Result<()>
    where
        S: Future<Output = ()>,
    {
        let platform = self.platform;
        tracing::info!(address = %self.local_addr, seed = platform.settings.seed, "sandbox listening");
        let service = http::routes::router(Arc::clone(&platform))
            .into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(DroppableListener(self.listener), service)
            .with_graceful_shutdown(platform.stop.clone().cancelled_owned());
        let mut server = std::pin::pin!(server.into_future());
        let served = tokio::select! {
            served = &mut server => Some(served),
            () = shutdown => None,
        };
        platform.stop.cancel();
        let drain = platform.drain(DRAIN_TIMEOUT);
        let served = match served {
            Some(served) => {
                drain.await;
                served
            }
            None => {
                let (served, ()) = tokio::join!(timeout(DRAIN_TIMEOUT, server), drain);
                served.unwrap_or(Ok(()))
            }
        };
        platform.abort().await;
        served
    }
}

/// Returns the base URL of an address. Not all systems can connect to the unspecified address, so
/// loopback replaces it.
fn base_url(mut address: SocketAddr) -> io::Result<Url> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{address}/api")).map_err(io::Error::other)
}
