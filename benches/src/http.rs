//! A minimal HTTP/1.1 client and server, so that the load generator takes little of the processor.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection that sends one request after the other.
pub struct Connection {
    stream: TcpStream,
    head: String,
    request: Vec<u8>,
    buffer: BytesMut,
}

impl Connection {
    pub async fn open(address: SocketAddr, path: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: "
        );
        Ok(Self { stream, head, request: Vec::new(), buffer: BytesMut::with_capacity(4096) })
    }

    /// Posts a body. Returns the status of the response.
    pub async fn post(&mut self, body: &str) -> io::Result<u16> {
        self.request.clear();
        self.request.extend_from_slice(self.head.as_bytes());
        self.request.extend_from_slice(body.len().to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(status) = parse_response(&self.buffer)? {
                return Ok(status);
            }
        }
    }
}

/// Returns the status of a complete response.
fn parse_response(bytes: &[u8]) -> io::Result<Option<u16>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let status = head.get(9..12).and_then(|text| text.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else {
        return Err(io::Error::other(format!("unexpected response: {head}")));
    };
    let length: usize = length;
    Ok((bytes.len() >= end + 4 + length).then_some(status))
}

/// Serves HTTP/1.1. The handler gets the path and the whole body. Without a response, the connection is
/// closed.
pub async fn serve<H, F>(listener: TcpListener, handler: H) -> io::Result<()>
where
    H: Fn(String, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Option<(u16, String)>> + Send + 'static,
{
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let handler = handler.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let Some((status, body)) = handler(path, body).await else {
                    return Err("no response".into());
                };
                let response = Response::builder().status(status);
                let response = response.header("content-type", "application/json");
                Ok::<_, Failure>(response.body(Full::new(Bytes::from(body)))?)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
