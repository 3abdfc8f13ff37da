//! Opens the audit log of the settings.

use std::sync::Arc;

use crate::{
    app::{error::StartError, journal::replica_name},
    audit::{AuditLog, AuditOptions, queue_slots},
    config::Config,
    domain::clock::Clock,
    telemetry::Telemetry,
};

/// Opens the audit log, and reports its state in the metrics.
pub(super) fn open_audit_log(
    config: &Config,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Result<AuditLog, StartError> {
    let options = AuditOptions {
        output: config.audit.output,
        path: config.audit_file(),
        max_bytes: config.audit.max_bytes,
        max_files: config.audit.max_files,
        replica: replica_name(),
        queue_slots: queue_slots(&config.limits),
    };
    let log = AuditLog::open(&options, Arc::clone(clock), telemetry.instruments())?;
    // The metrics outlive the log and must not keep its file locked.
    let observed = log.downgrade();
    telemetry.observe_audit(move || observed.upgrade().gauges());
    Ok(log)
}
