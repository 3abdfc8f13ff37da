//! Connections to the database.

use std::{
    collections::HashMap,
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Statement as PreparedStatement};
use tokio_util::task::AbortOnDropHandle;

use crate::journal::{
    postgres::{
        dialect::{translate, translate_batch},
        driver::Driver,
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

/// The response to a request that was sent.
pub(super) type Response<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    settings: Arc<ConnectionSettings>,
    driver: Arc<Driver>,
}

/// A connection. Its methods block the thread, which must not be one of the runtime.
pub(super) struct Connection {
    client: Arc<Client>,
    driver: Arc<Driver>,
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
    /// Starts the thread that drives the connections.
    pub(super) fn new(settings: ConnectionSettings) -> Result<Self, PostgresError> {
        let driver = Driver::start_thread();
        let driver = driver.map_err(|error| PostgresError::new(error.to_string()))?;
        Ok(Self { settings: Arc::new(settings), driver: Arc::new(driver) })
    }

    /// Opens the same connections, driven by the thread that waits in a runtime.
    pub(super) fn driven_in(&self, runtime: Arc<Runtime>) -> Self {
        let driver = Arc::new(Driver::Caller(runtime));
        Self { settings: Arc::clone(&self.settings), driver }
    }

    /// The driver of the connections.
    pub(super) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Opens a connection. `notifications` receives the messages of the server, and the end of the connection.
    pub(super) async fn connect(
        &self,
        notifications: Option<Arc<Notifications>>,
    ) -> Result<Connection, PostgresError> {
        let settings = Arc::clone(&self.settings);
        let connecting =
            async move { timeout(CONNECT_TIMEOUT, connect(&settings, notifications)).await };
        // The runtime in which a connection is opened receives its events.
        let connected = self.driver.handle().spawn(connecting).await;
        let connected = connected.map_err(|error| PostgresError::new(error.to_string()))?;
        let client = connected.map_err(|_| PostgresError::timed_out())??;
        Ok(Connection {
            client: Arc::new(client),
            driver: Arc::clone(&self.driver),
            statements: Mutex::default(),
            response_timeout: self.settings.response_timeout(),
        })
    }
}

/// Opens a connection in the present runtime.
async fn connect(
    settings: &ConnectionSettings,
    notifications: Option<Arc<Notifications>>,
) -> Result<Client, PostgresError> {
    let config = settings.config()?;
    let (client, mut connection) = config.connect(settings.tls()).await?;
    tokio::spawn(async move {
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
                notifications.receive(message.as_ref().and_then(|message| message.as_ref().ok()));
            }
            if !matches!(message, Some(Ok(_))) {
                return;
            }
        }
    });
    Ok(client)
}

impl Connection {
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Waits longer for the responses to [`block_on`](Self::block_on).
    pub(super) fn with_response_timeout(self, response_timeout: Duration) -> Self {
        Self { response_timeout, ..self }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends the request of a future, and receives its response in the background: tokio-postgres reads nothing from
    /// a connection while it has a part of a response that is not received. Dropping the response ends it.
    pub(super) fn start<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Response<T> {
        let mut request = Box::pin(request);
        // The first poll sends the request, so that requests are sent in the order of these calls.
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Box::pin(ready(result)),
            Poll::Pending => {
                let receiving = AbortOnDropHandle::new(self.driver.handle().spawn(request));
                Box::pin(async move {
                    let received = receiving.await;
                    received.unwrap_or_else(|error| {
                        Err(PostgresError::connection_lost(error.to_string()).into())
                    })
                })
            }
        }
    }

    /// The driver of the connection.
    pub(super) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Waits for a response.
    pub(super) fn block_on<T>(&self, response: impl Future<Output = Result<T>>) -> Result<T> {
        let response = async { timeout(self.response_timeout, response).await };
        let received = self.driver.block_on(response);
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
