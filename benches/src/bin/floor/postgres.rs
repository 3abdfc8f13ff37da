//! Stores callbacks by COPY into tables like those of the gateway.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, NoTls, Statement};

use crate::Failure;

/// The tables into which the gateway inserts one row for each callback, with the same columns and indexes.
const TABLES: &str = "
CREATE TABLE event (position BIGINT PRIMARY KEY, stream BIGINT NOT NULL, account BIGINT, kind BIGINT NOT NULL,
    early_request BIGINT, body BYTEA NOT NULL, link BYTEA);
CREATE INDEX event_by_stream ON event (stream, position);
CREATE INDEX event_by_account ON event (account, position) WHERE account IS NOT NULL;
CREATE TABLE callback_body (position BIGINT PRIMARY KEY, raw_json BYTEA NOT NULL);
CREATE TABLE device_state (id BIGINT PRIMARY KEY, identifier_kinds BIGINT NOT NULL, precedence BIGINT,
    decided_by BIGINT, digests BYTEA NOT NULL);
";

/// Average sizes of the columns in the gateway's rows.
const BODY_LENGTH: usize = 261;
const LINK_LENGTH: usize = 126;
const DIGEST_LENGTH: usize = 16;

/// Number of devices of a change, as in the rows of callbacks.
const DEVICES: i64 = 10_000;

/// Maximum number of callbacks that wait for a commit.
const CAPACITY: usize = 16_384;

/// A callback that waits for its commit.
pub type Append = (Bytes, oneshot::Sender<()>);

/// Stores callbacks.
struct Store {
    client: Client,
    events: Statement,
    bodies: Statement,
    states: Statement,
    position: i64,
}

/// Creates the tables, and starts a task that stores callbacks: as many as are waiting with each commit.
pub async fn start(url: &str) -> Result<mpsc::Sender<Append>, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(TABLES).await?;
    let copy = |table: &str| format!("COPY {table} FROM STDIN BINARY");
    let mut store = Store {
        events: client.prepare(&copy("event")).await?,
        bodies: client.prepare(&copy("callback_body")).await?,
        states: client.prepare(&copy("device_state")).await?,
        client,
        position: 0,
    };
    let (sender, mut receiver) = mpsc::channel::<Append>(CAPACITY);
    tokio::spawn(async move {
        let mut waiting = Vec::new();
        while receiver.recv_many(&mut waiting, CAPACITY).await > 0 {
            if let Err(error) = store.store(&waiting).await {
                // Dropping the receiver refuses all callbacks.
                eprintln!("{error}");
                return;
            }
            for (_, done) in waiting.drain(..) {
                let _ = done.send(());
            }
        }
    });
    Ok(sender)
}

impl Store {
    /// Stores callbacks in one transaction, without waiting between its statements.
    async fn store(&mut self, callbacks: &[Append]) -> Result<(), tokio_postgres::Error> {
        let mut events = CopyData::new();
        let mut bodies = CopyData::new();
        let mut states = CopyData::new();
        for (body, _) in callbacks {
            self.position += 1;
            let (position, change) = (self.position, self.position / DEVICES * DEVICES);
            let part = |length| &body[..body.len().min(length)];
            events.row(7).int(position).int(change).int(1).int(1).null();
            events.bytes(part(BODY_LENGTH)).bytes(part(LINK_LENGTH));
            bodies.row(2).int(position).bytes(body);
            let id = (change << 20) + position % DEVICES;
            states.row(5).int(id).int(3).int(1).int(position).bytes(part(DIGEST_LENGTH));
        }
        tokio::try_join!(
            biased;
            self.client.batch_execute("BEGIN"),
            self.copy(&self.events, events),
            self.copy(&self.bodies, bodies),
            self.copy(&self.states, states),
            self.client.batch_execute("COMMIT"),
        )?;
        Ok(())
    }

    async fn copy(
        &self,
        statement: &Statement,
        data: CopyData,
    ) -> Result<(), tokio_postgres::Error> {
        let mut sink = Box::pin(self.client.copy_in(statement).await?);
        sink.send(data.finish()).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }
}

/// Rows in the binary format of COPY.
struct CopyData(BytesMut);

impl CopyData {
    fn new() -> Self {
        let mut data = BytesMut::from(&b"PGCOPY\n\xff\r\n\0"[..]);
        data.put_u64(0);
        Self(data)
    }

    fn row(&mut self, columns: i16) -> &mut Self {
        self.0.put_i16(columns);
        self
    }

    fn int(&mut self, value: i64) -> &mut Self {
        self.0.put_i32(8);
        self.0.put_i64(value);
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.put_i32(value.len() as i32);
        self.0.put_slice(value);
        self
    }

    fn null(&mut self) -> &mut Self {
        self.0.put_i32(-1);
        self
    }

    fn finish(mut self) -> Bytes {
        self.0.put_i16(-1);
        self.0.freeze()
    }
}
