//! Forwards the bytes of one connection.

use std::{collections::VecDeque, io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until},
};

use super::{Mode, Open, PlannedCut, Shared, reset};

/// Maximum number of buffered bytes of a direction.
const BUFFER: usize = 64 << 10;
const MAX_READ: usize = 16 << 10;

/// Forwards a connection until both sides have closed it, one has reset it, or it is cut.
pub(super) async fn run(client: TcpStream, open: Open) {
    // Dropped after the sockets, so that a connection that counts as closed is closed.
    let open = &open;
    let mut client = client;
    let mut connections = open.shared.connections.subscribe();
    let cut = async {
        let _ = connections.wait_for(|now| now.cut_up_to >= open.id).await;
    };
    tokio::pin!(cut);

    let server = tokio::select! {
        biased;
        () = &mut cut => None,
        server = connect(&open.shared) => server.ok(),
    };
    let Some(mut server) = server else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let closed_by_both = {
        let (client_reader, client_writer) = client.split();
        let (server_reader, server_writer) = server.split();
        let to_server = Direction::new(open, true).forward(client_reader, server_writer);
        let to_client = Direction::new(open, false).forward(server_reader, client_writer);
        tokio::select! {
            biased;
            () = &mut cut => false,
            result = async { tokio::try_join!(to_server, to_client) } => result.is_ok(),
        }
    };
    if !closed_by_both {
        reset(&client);
        reset(&server);
    }
}

/// Connects to the server, after the end of a black hole. If this is cancelled, the server sees a
/// reset.
#[expect(deprecated, reason = "`set_linger` blocks only with a duration above zero")]
async fn connect(shared: &Arc<Shared>) -> io::Result<TcpStream> {
    let mut rules = shared.rules.subscribe();
    let target = match rules.wait_for(|rules| rules.mode != Mode::BlackHole).await {
        Ok(rules) => rules.target,
        Err(error) => return Err(io::Error::other(error)),
    };
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    let server = socket.connect(target).await?;
    server.set_linger(None)?;
    Ok(server)
}

/// One direction of a connection.
struct Direction<'a> {
    id: u64,
    shared: &'a Shared,
    to_server: bool,
    /// Chunks in order of arrival, each with the time of it.
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued_bytes: usize,
    /// The last forwarded bytes, in which a text may begin that a planned cut waits for.
    recent: Vec<u8>,
}

impl<'a> Direction<'a> {
    fn new(open: &'a Open, to_server: bool) -> Self {
        Self {
            id: open.id,
            shared: &open.shared,
            to_server,
            queue: VecDeque::new(),
            queued_bytes: 0,
            recent: Vec::new(),
        }
    }

    /// Forwards bytes until the reader has ended. Then ends the writer.
    async fn forward(
        mut self,
        mut reader: ReadHalf<'_>,
        mut writer: WriteHalf<'_>,
    ) -> io::Result<()> {
        let mut rules = self.shared.rules.subscribe();
        let mut ended = false;
        loop {
            let (mode, delay) = {
                let rules = rules.borrow_and_update();
                (rules.mode, rules.delay)
            };
            let flowing = mode != Mode::BlackHole;
            let due = self.queue.front().map(|(arrived, _)| *arrived + delay);
            if flowing && ended && due.is_none() {
                return writer.shutdown().await;
            }
            let writable = due.is_some_and(|due| due <= Instant::now());
            let free = BUFFER.saturating_sub(self.queued_bytes);
            let mut chunk = Vec::with_capacity(free.min(MAX_READ));
            tokio::select! {
                changed = rules.changed() => changed.map_err(io::Error::other)?,
                read = reader.read_buf(&mut chunk), if flowing && !ended && free > 0 => {
                    if read? == 0 {
                        ended = true;
                    } else if self.cuts_before_forwarding() {
                        return Err(self.cut());
                    } else {
                        self.queued_bytes += chunk.len();
                        self.queue.push_back((Instant::now(), chunk));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)),
                    if flowing && due.is_some() && !writable => {}
                result = writer.writable(), if flowing && writable => {
                    result?;
                    self.write(&writer)?;
                }
            }
        }
    }

    /// True if a planned cut waits for bytes that have just arrived.
    fn cuts_before_forwarding(&self) -> bool {
        let mut planned = self.shared.planned_cut();
        let awaited = matches!(*planned, Some(PlannedCut::BeforeReply(on))
            if !self.to_server && on.is_none_or(|id| id == self.id));
        if awaited {
            *planned = None;
        }
        awaited
    }

    /// Cuts all connections. The error ends this one before it forwards more.
    fn cut(&self) -> io::Error {
        self.shared.cut();
        io::ErrorKind::ConnectionReset.into()
    }

    /// Writes as much of the first chunk as the connection and a planned cut allow.
    fn write(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        let Some((_, chunk)) = self.queue.front_mut() else { return Ok(()) };
        // Locked until the write has ended, because other connections count too.
        let mut planned = self.shared.planned_cut();
        let mut allowed = chunk.len();
        if let (true, Some(PlannedCut::AfterBytes(limit))) = (self.to_server, &*planned) {
            allowed = allowed.min(*limit);
        }
        let written = match writer.try_write(chunk.get(..allowed).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        let forwarded: Vec<u8> = chunk.drain(..written).collect();
        if chunk.is_empty() {
            self.queue.pop_front();
        }
        self.queued_bytes -= written;
        if !self.to_server {
            return Ok(());
        }
        match &mut *planned {
            Some(PlannedCut::AfterBytes(limit)) => {
                *limit -= written;
                if *limit == 0 {
                    *planned = None;
                    drop(planned);
                    return Err(self.cut());
                }
            }
            Some(PlannedCut::BeforeReplyTo(text)) => {
                self.recent.extend(forwarded);
                if text.is_empty() || self.recent.windows(text.len()).any(|part| part == text) {
                    *planned = Some(PlannedCut::BeforeReply(Some(self.id)));
                    self.recent.clear();
                } else {
                    let kept = self.recent.len().min(text.len() - 1);
                    self.recent.drain(..self.recent.len() - kept);
                }
            }
            _ => self.recent.clear(),
        }
        Ok(())
    }
}
