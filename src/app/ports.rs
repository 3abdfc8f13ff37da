//! The TCP ports of a gateway.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::{app::error::StartError, config::Config, connections::ConnectionLimits};

/// Connections that may wait to be accepted. The system may permit fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;

/// Addresses of a gateway. Ports that were configured as 0 have their actual number.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The gRPC server.
    pub grpc: SocketAddr,
    /// The callback listener.
    pub callbacks: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    /// The console. `None` if it is off.
    pub console: Option<SocketAddr>,
}

/// The bound ports.
pub(super) struct Ports {
    pub(super) addresses: Addresses,
    pub(super) grpc: TcpListener,
    pub(super) callbacks: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) console: Option<TcpListener>,
    pub(super) limits: ConnectionLimits,
}

impl Ports {
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let limits = ConnectionLimits::reserve(config.console.listen.is_some())?;
        let (grpc, grpc_address) = bind("grpc.listen", config.grpc.listen)?;
        let (callbacks, callbacks_address) = bind("callbacks.listen", config.callbacks.listen)?;
        let (admin, admin_address) = bind("admin.listen", config.admin.listen)?;
        let console = config.console.listen;
        let console = console.map(|address| bind("console.listen", address)).transpose()?;
        let (console, console_address) = console.unzip();
        let addresses = Addresses {
            grpc: grpc_address,
            callbacks: callbacks_address,
            admin: admin_address,
            console: console_address,
        };
        Ok(Self { addresses, grpc, callbacks, admin, console, limits })
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| StartError::Bind { key, address, source })
}
