//! Wiring and lifecycle: builds a gateway from its settings, runs it, and drains it.

mod access;
mod admin_port;
mod admin_socket;
mod audit_log;
mod embedded_sandbox;
mod error;
mod failed_logins;
mod journal;
mod lifecycle;
mod new_file;
mod ports;
mod readiness;
mod shared_state;
mod transfer;
mod waiting;
mod wiring;

pub use error::StartError;
pub use lifecycle::{App, ShutdownOutcome};
pub use ports::Addresses;
pub use transfer::{
    LossReport, accept_loss, back_up_journal, check_journal, check_journal_file, export_journal,
    import_journal, journal_name, prepare_import, restore_journal,
};
pub(crate) use wiring::SystemClock;
