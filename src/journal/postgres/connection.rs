//! Connections to the database.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Statement as PreparedStatement};

use crate::journal::{
    postgres::{
        dialect::{translate, translate_batch},
        error::PostgresError,
        notifications::Notifications,
        url::ConnectionSettings,
    },
    sql::{Result, SqlError, Statement},
};

/// Maximum duration of a connection attempt, for all hosts together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of prepared statements of a connection.
const MAX_STATEMENTS: usize = 256;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    settings: Arc<ConnectionSettings>,
    runtime: Handle,
}

/// A connection. Its methods block the thread, which must not be one of the runtime.
pub(super) struct Connection {
    client: Arc<Client>,
    runtime: Handle,
    statements: Mutex<Statements>,
    response_timeout: Duration,
}

/// The prepared statements, by their text in the dialect of SQLite.
#[derive(Default)]
struct Statements {
    single: HashMap<String, PreparedStatement>,
    batch: HashMap<String, PreparedStatement>,
}

impl Connector {
    /// Must be called in a Tokio runtime, which drives the connections.
    pub(super) fn new(settings: ConnectionSettings) -> Self {
        Self { settings: Arc::new(settings), runtime: Handle::current() }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Opens a connection. `notifications` receives the messages of the server, and the end of the connection.
    pub(super) async fn connect(
        &self,
        notifications: Option<Arc<Notifications>>,
    ) -> Result<Connection, PostgresError> {
        let connected = timeout(CONNECT_TIMEOUT, self.try_connect(notifications)).await;
        let client = connected.map_err(|_| PostgresError::timed_out())??;
        Ok(Connection {
            client: Arc::new(client),
            runtime: self.runtime.clone(),
            statements: Mutex::default(),
            response_timeout: self.settings.response_timeout(),
        })
    }

    async fn try_connect(
        &self,
        notifications: Option<Arc<Notifications>>,
    ) -> Result<Client, PostgresError> {
        let config = self.settings.config()?;
        let (client, mut connection) = config.connect(self.settings.tls()).await?;
        self.runtime.spawn(async move {
            loop {
                let message = poll_fn(|context| connection.poll_message(context)).await;
                match &message {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(severity = notice.severity(), "PostgreSQL sent a notice");
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "PostgreSQL connection lost"),
                    None => {}
                }
                if let Some(notifications) = &notifications {
                    let message = message.as_ref().and_then(|message| message.as_ref().ok());
                    notifications.receive(message);
                }
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
        });
        Ok(client)
    }
}

impl Connection {
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for a response.
    pub(super) fn block_on<T>(&self, response: impl Future<Output = Result<T>>) -> Result<T> {
        let response = async { timeout(self.response_timeout, response).await };
        let received = self.runtime.block_on(response);
        received.unwrap_or_else(|_elapsed| Err(PostgresError::timed_out().into()))
    }

    /// Returns a prepared statement that runs once. Prepares it at its first use.
    pub(super) fn prepare(&self, sql: &str) -> Result<PreparedStatement> {
        self.prepare_in(|statements| &mut statements.single, sql, || translate(sql))
    }

    /// Returns a prepared statement that runs for each row of a batch. Prepares it at its first use.
    pub(super) fn prepare_batch(&self, statement: &Statement) -> Result<PreparedStatement> {
        let translate = || translate_batch(statement);
        self.prepare_in(|statements| &mut statements.batch, statement.sql, translate)
    }

    fn prepare_in(
        &self,
        select: impl Fn(&mut Statements) -> &mut HashMap<String, PreparedStatement>,
        key: &str,
        translate: impl FnOnce() -> String,
    ) -> Result<PreparedStatement> {
        if let Some(statement) = select(&mut self.statements.lock()).get(key) {
            return Ok(statement.clone());
        }
        let sql = translate();
        let prepared =
            self.block_on(async { self.client.prepare(&sql).await.map_err(SqlError::from) })?;
        let mut statements = self.statements.lock();
        let statements = select(&mut statements);
        if statements.len() >= MAX_STATEMENTS {
            statements.clear();
        }
        statements.insert(key.to_owned(), prepared.clone());
        Ok(prepared)
    }
}
