//! The TCP ports of a gateway.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::{app::error::StartError, config::Config};

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
pub(super) struct BoundPorts {
    pub(super) grpc: TcpListener,
    pub(super) callbacks: TcpListener,
    pub(super) admin: TcpListener,
}

// === impl BoundPorts ===

impl BoundPorts {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            grpc: bind("grpc.listen", config.grpc.listen).await?,
            callbacks: bind("callbacks.listen", config.callbacks.listen).await?,
            admin: bind("admin.listen", config.admin.listen).await?,
        })
    }

    pub(super) fn addresses(&self) -> Result<Addresses, StartError> {
        let local_addr = |key, listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Bind {
                key,
                address: (Ipv4Addr::UNSPECIFIED, 0).into(),
                source,
            })
        };
        Ok(Addresses {
            grpc: local_addr("grpc.listen", &self.grpc)?,
            callbacks: local_addr("callbacks.listen", &self.callbacks)?,
            admin: local_addr("admin.listen", &self.admin)?,
        })
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { key, address, source })
}

// === impl Addresses ===

impl Addresses {
    /// Logs the addresses, for ports that were configured as 0.
    pub(super) fn log(&self) {
        tracing::info!(address = %self.grpc, "gRPC listens on {}", self.grpc);
        tracing::info!(address = %self.callbacks, "callbacks listen on {}", self.callbacks);
        tracing::info!(address = %self.admin, "admin listens on {}", self.admin);
    }
}
