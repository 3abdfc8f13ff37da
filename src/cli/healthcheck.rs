//! `healthcheck`: the health check of a container.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::{
    cli::{exit::ExitError, output::print_line, settings_args::SettingsArgs},
    grpc::health_v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};

/// Time for connecting and the response.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckCommand {
    /// A port that serves gRPC health. Default: `admin.listen` on this machine
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

// === impl HealthcheckCommand ===

impl HealthcheckCommand {
    /// Prints the health status.
    ///
    /// # Errors
    ///
    /// Exit code 1: the gateway does not serve, or does not respond. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let address = match self.address {
            Some(address) => address,
            None => to_loopback(self.settings.load()?.config.admin.listen).to_string(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result =
            runtime.block_on(async { timeout(CHECK_TIMEOUT, check_health(&address)).await });
        let status = result
            .unwrap_or_else(|_elapsed| Err(format!("no response within {CHECK_TIMEOUT:?}")))
            .map_err(|error| ExitError::failure(format!("{address}: {error}")))?;
        print_line(status.as_str_name())?;
        match status {
            ServingStatus::Serving => Ok(()),
            _ => Err(ExitError::silent()),
        }
    }
}

async fn check_health(address: &str) -> Result<ServingStatus, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| {
        // The error itself only names the transport.
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let request = HealthCheckRequest::default();
    let response = HealthClient::new(channel).check(request).await;
    response.map(|response| response.into_inner().status()).map_err(|status| status.to_string())
}

/// Replaces an unspecified address, such as `0.0.0.0`, by the loopback address.
fn to_loopback(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}
