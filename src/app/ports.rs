//! The TCP ports of a gateway.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::{app::error::StartError, config::Config, connections::ConnectionLimits};

/// Addresses of a gateway. Ports that were configured as 0 have their actual number.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The gRPC server.
    pub grpc: SocketAddr,
    /// The callback listener.
    pub callbacks: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

/// The bound ports.
pub(super) struct Ports {
    pub(super) addresses: Addresses,
    pub(super) grpc: TcpListener,
    pub(super) callbacks: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) limits: ConnectionLimits,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let limits = ConnectionLimits::reserve()?;
        let (grpc, grpc_address) = bind("grpc.listen", config.grpc.listen).await?;
        let (callbacks, callbacks_address) =
            bind("callbacks.listen", config.callbacks.listen).await?;
        let (admin, admin_address) = bind("admin.listen", config.admin.listen).await?;
        let addresses =
            Addresses { grpc: grpc_address, callbacks: callbacks_address, admin: admin_address };
        Ok(Self { addresses, grpc, callbacks, admin, limits })
    }
}

async fn bind(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Bind { key, address, source })
}
