//! Errors of a start.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    access::{identity::SetupError, policy::PolicyLoadError},
    audit::AuditOpenError,
    config,
    connections::TooFewDescriptors,
    grpc::ServerError,
    journal::{JournalError, postgres, sqlite},
    spool::SpoolOpenError,
    thingspace::ClientBuildError,
    tls::TlsError,
};

/// A gateway that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be bound.
    #[error("{key} {address}: {source}")]
    Bind {
        /// The setting of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// A port cannot be used before the journal is open.
    #[error("cannot share a port: {0}")]
    Share(io::Error),
    /// A signal ended the wait for the database of the journal.
    #[error("stopped before the journal could be opened")]
    Stopped,
    /// The embedded journal cannot be opened.
    #[error(transparent)]
    OpenSqlite(#[from] sqlite::JournalOpenError),
    /// The journal in PostgreSQL cannot be opened.
    #[error(transparent)]
    OpenPostgres(#[from] postgres::JournalOpenError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditOpenError),
    /// Changes that the last stop interrupted cannot be recovered.
    #[error("cannot recover the journal: {0}")]
    Recover(#[from] JournalError),
    /// The ThingSpace client cannot be built.
    #[error(transparent)]
    ThingSpace(#[from] ClientBuildError),
    /// The gRPC server cannot be built.
    #[error("cannot build the gRPC services: {0}")]
    Api(#[from] ServerError),
    /// The policy file cannot be read, or has errors.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// The credentials of callers cannot be checked.
    #[error(transparent)]
    Identity(#[from] SetupError),
    /// The certificate of a port cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin socket cannot be created.
    #[error("admin.socket {path}: {source}", path = .path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The embedded sandbox or its temporary directory cannot be created.
    #[error("cannot start the sandbox: {0}")]
    Sandbox(io::Error),
}

impl StartError {
    /// True if the database of the journal may only be unavailable or busy for now.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::OpenPostgres(error) if !error.0.is_final())
    }

    /// Returns the exit code: `EX_CONFIG` if a retry cannot help, because the journal is damaged, because
    /// the journal or the spool belongs to another ThingSpace, has another version or is on a network file system, because the database cannot be used, or because the
    /// policy file has errors, or because the process may open too few files; otherwise 1.
    pub fn exit_code(&self) -> u8 {
        let is_final = match self {
            Self::OpenSqlite(error) => error.failure.is_final(),
            Self::OpenPostgres(error) => error.0.is_final(),
            Self::Spool(error) => error.failure.is_final(),
            Self::Descriptors(_) | Self::Policy(_) => true,
            _ => false,
        };
        if is_final { config::EXIT_CODE } else { 1 }
    }
}
