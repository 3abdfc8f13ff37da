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
mod clock;
mod devices;
mod errors;
mod execute;
mod faults;
mod http;
mod identifiers;
mod json_body;
mod ledger;
mod listeners;
mod one_shot;
mod operations;
mod outcome;
mod platform;
mod rate_limiter;
mod scenario;
mod seeded_faults;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, time::sleep};
use url::Url;

use platform::Platform;

pub use scenario::{
    identifiers::IdentifierPrefix,
    list::{ScenarioInfo, scenarios, scenarios_markdown},
};
pub use settings::{CallbackOrder, ResendPolicy, Settings};

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
    /// The port cannot be bound, the file of a secret cannot be read, or the TLS client of callbacks
    /// cannot be built.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listen = settings.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("sandbox.listen {listen}: {error}"))
        })?;
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
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let platform = self.platform;
        tracing::info!(address = %self.local_addr, seed = platform.settings.seed, "sandbox listening");
        let server = axum::serve(self.listener, http::routes::router(Arc::clone(&platform)))
            .with_graceful_shutdown(platform.stop.clone().cancelled_owned());
        platform.deliveries.close();
        let drained = async {
            let served = server.await;
            platform.deliveries.wait().await;
            served
        };
        let drain_deadline = async {
            shutdown.await;
            platform.stop.cancel();
            sleep(DRAIN_TIMEOUT).await;
        };
        let served = tokio::select! {
            served = drained => served,
            () = drain_deadline => Ok(()),
        };
        platform.abort.cancel();
        platform.deliveries.wait().await;
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
