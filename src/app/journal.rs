//! Opens the journal of the settings.

use std::sync::Arc;

use rustix::system::uname;

use crate::{
    app::error::StartError,
    config::{Config, JournalEngine, RequiredDurability},
    journal::{
        Journal, Origin,
        postgres::{self, PostgresOptions},
        sqlite::{self, SqliteOptions},
    },
    telemetry::Instruments,
};

/// Returns the name of this replica: the host name, in Kubernetes the name of the pod.
pub(super) fn replica_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// Opens the journal, or creates it. No other module of the gateway depends on the engine.
pub(super) async fn open_journal(
    config: &Config,
    origin: Origin,
    instruments: Instruments,
) -> Result<Arc<dyn Journal>, StartError> {
    let journal = &config.journal;
    match (journal.engine, &journal.url) {
        (JournalEngine::Postgres, Some(url)) => {
            let options = PostgresOptions {
                url: url.clone(),
                password: journal.password.clone(),
                max_connections: journal.max_connections,
                replica_name: replica_name(),
                allow_relaxed_durability: journal.durability == RequiredDurability::Relaxed,
                origin,
                instruments,
            };
            Ok(postgres::open(&options).await?)
        }
        // The rules of the settings require a URL for PostgreSQL.
        (JournalEngine::Sqlite | JournalEngine::Postgres, _) => Ok(sqlite::open(&SqliteOptions {
            dir: journal.dir.clone(),
            origin,
            allow_network_filesystem: journal.allow_network_filesystem,
            instruments,
        })?),
    }
}
