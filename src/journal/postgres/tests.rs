use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thingspace_postgres_server::{Options, Server, Version};
use tokio::sync::OnceCell;

use super::*;
use crate::{
    journal::{
        Journal, Origin,
        conformance::{self, Engine},
    },
    telemetry::Instruments,
};

/// The server of all tests of a process.
static SERVER: OnceCell<Server> = OnceCell::const_new();
/// The number of databases in it.
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A database of its own.
struct Database(OnceCell<PostgresOptions>);

impl Database {
    fn new() -> Self {
        Self(OnceCell::new())
    }

    async fn options(&self) -> &PostgresOptions {
        self.0.get_or_init(create_database).await
    }
}

async fn create_database() -> PostgresOptions {
    let start = async || {
        let options = Options::new(Version::Debian).without_fsync();
        Server::start_new(options.setting("max_connections = 500")).await.unwrap()
    };
    let server = SERVER.get_or_init(start).await;
    let name = format!("journal{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap();
    PostgresOptions {
        url: server.url(&name).into(),
        password_file: None,
        max_connections: 4,
        replica_name: "a".into(),
        origin: Origin::sandbox(),
        instruments: Instruments::noop(),
    }
}

impl Engine for Database {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        Box::pin(async { open(self.options().await).await.unwrap() })
    }
}

conformance::tests!(Database::new());
