//! Connections that a handler can drop, instead of a response or in the middle of one.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::connect_info::{ConnectInfo, Connected},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    serve::{IncomingStream, Listener},
};
use futures_util::stream::{self, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Delay between the first half of a response and the end of its connection, so that the client
/// receives the half.
const DROP_DELAY: Duration = Duration::from_millis(50);

/// A listener whose connections can be dropped.
pub(crate) struct DroppableListener(pub(crate) TcpListener);

/// A handle of a connection. True if it is dropped.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<AtomicBool>);

/// Extracts the connection of a request.
pub(crate) type RequestConnection = ConnectInfo<Connection>;

/// A TCP stream that fails after its connection is dropped.
pub(crate) struct Droppable {
    stream: TcpStream,
    connection: Connection,
}

impl Connection {
    /// Drops the connection. The server notices when it writes the returned response.
    pub(crate) fn drop_without_response(&self) -> Response {
        self.0.store(true, Ordering::Release);
        StatusCode::NO_CONTENT.into_response()
    }

    /// Returns a response whose second half fails, which closes the connection.
    pub(crate) fn drop_mid_response(text: &str) -> Response {
        let half = text.as_bytes().get(..text.len() / 2).unwrap_or_default();
        let half = Bytes::copy_from_slice(half);
        let length = text.len().to_string();
        let body = stream::once(async { Ok(half) }).chain(stream::once(async {
            sleep(DROP_DELAY).await;
            Err(io::Error::from(io::ErrorKind::ConnectionAborted))
        }));
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::CONTENT_LENGTH, length),
        ];
        (headers, Body::from_stream(body)).into_response()
    }
}

impl Connected<IncomingStream<'_, DroppableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, DroppableListener>) -> Self {
        stream.io().connection.clone()
    }
}

impl Listener for DroppableListener {
    type Io = Droppable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        let connection = Connection::default();
        (Droppable { stream, connection }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Droppable {
    fn check(&self) -> io::Result<()> {
        if self.connection.0.load(Ordering::Acquire) {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        Ok(())
    }
}

impl AsyncRead for Droppable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Droppable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
