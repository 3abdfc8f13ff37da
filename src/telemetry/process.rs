//! Metrics of the process, with the names that Prometheus' client libraries use. Only `/metrics` has them.

use procfs::{
    WithCurrentSystemInfo, boot_time_secs,
    process::{LimitValue, Process},
    ticks_per_second,
};
use prometheus::{
    Counter, Gauge, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Reads the figures of this process at each collection. Figures that cannot be read keep their last value.
struct ProcessCollector {
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident_memory: IntGauge,
    virtual_memory: IntGauge,
    cpu_seconds: Counter,
    start_time: Gauge,
}

/// Adds the metrics of the process to a registry.
///
/// # Errors
///
/// A name is registered already.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    let number = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
    registry.register(Box::new(ProcessCollector {
        open_fds: number("process_open_fds", "Open file descriptors")?,
        max_fds: number("process_max_fds", "Maximum number of open file descriptors")?,
        resident_memory: number("process_resident_memory_bytes", "Resident memory in bytes")?,
        virtual_memory: number("process_virtual_memory_bytes", "Virtual memory in bytes")?,
        cpu_seconds: Counter::with_opts(Opts::new(
            "process_cpu_seconds_total",
            "User and system time in seconds",
        ))?,
        start_time: Gauge::with_opts(Opts::new(
            "process_start_time_seconds",
            "Unix time of the start",
        ))?,
    }))
}

// === impl ProcessCollector ===

impl ProcessCollector {
    fn update(&self) -> procfs::ProcResult<()> {
        let process = Process::myself()?;
        self.open_fds.set(process.fd_count()?.try_into().unwrap_or(i64::MAX));
        if let LimitValue::Value(limit) = process.limits()?.max_open_files.soft_limit {
            self.max_fds.set(limit.try_into().unwrap_or(i64::MAX));
        }
        let stat = process.stat()?;
        self.virtual_memory.set(stat.vsize.try_into().unwrap_or(i64::MAX));
        let resident = stat.rss_bytes().get();
        self.resident_memory.set(resident.try_into().unwrap_or(i64::MAX));
        let ticks = ticks_per_second();
        let cpu = seconds(stat.utime.saturating_add(stat.stime), ticks);
        self.cpu_seconds.inc_by((cpu - self.cpu_seconds.get()).max(0.0));
        let started = boot_time_secs()?.saturating_mul(ticks).saturating_add(stat.starttime);
        self.start_time.set(seconds(started, ticks));
        Ok(())
    }

    fn metrics(&self) -> [&dyn Collector; 6] {
        [
            &self.open_fds,
            &self.max_fds,
            &self.resident_memory,
            &self.virtual_memory,
            &self.cpu_seconds,
            &self.start_time,
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Err(error) = self.update() {
            tracing::debug!(%error, "cannot read the figures of this process");
        }
        self.metrics().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Converts a number of clock ticks.
#[allow(clippy::cast_precision_loss, reason = "exact for the first million years")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second.max(1) as f64
}
