//! `healthcheck`: asks a gateway whether it serves, as a container's health check does.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::timeout;
use tonic::transport::Endpoint;

use super::write_line;
use crate::{
    config::{self, Config, Sources},
    grpc::health_v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};

/// How long the answer may take, connecting included.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks, and says the answer on `out`. Exit code 0 when the gateway serves, 1 when it does not or
/// cannot be asked, 78 when the settings cannot be read.
///
/// # Errors
///
/// What the writers say, and what the runtime lacks.
pub fn run(
    address: Option<String>,
    sources: &Sources,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let address = match address {
        Some(address) => address,
        None => match Config::load(sources) {
            Ok(loaded) => to_loopback(loaded.config.admin.listen).to_string(),
            Err(error) => {
                write_line(err, &error.to_string())?;
                return Ok(config::EXIT_CODE);
            }
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async { timeout(CHECK_TIMEOUT, check_health(&address)).await });
    match asked {
        Ok(Ok(status)) => {
            write_line(out, status.as_str_name())?;
            Ok(u8::from(status != ServingStatus::Serving))
        }
        Ok(Err(why)) => {
            write_line(err, &format!("{address}: {why}"))?;
            Ok(1)
        }
        Err(_elapsed) => {
            write_line(
                err,
                &format!("{address}: no answer within {CHECK_TIMEOUT:?}"),
            )?;
            Ok(1)
        }
    }
}

async fn check_health(address: &str) -> Result<ServingStatus, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| {
        // The error itself says only that it is one of transport.
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(channel).check(request).await;
    answer
        .map(|answer| answer.into_inner().status())
        .map_err(|status| status.to_string())
}

/// A port that listens on every address is asked on the loopback one.
fn to_loopback(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}
