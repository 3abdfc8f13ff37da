//! Arguments and order of events.

use std::error::Error;

use clap::Args;

use crate::cli::{
    demo::{gateway::DemoGateway, report::DemoReport, results::Print, story::Demo},
    exit::ExitError,
    output::print_line,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoCommand {
    /// Number of devices of each change, 1 to 10,000
    #[arg(
        long, value_name = "N", default_value = "12",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    devices: u32,
    /// Print only the summary, as one line of JSON
    #[arg(long)]
    json: bool,
    /// Use this gateway instead of starting one. It needs a sandbox: gateways of the real ThingSpace
    /// reject the demo's devices
    #[arg(long, value_name = "HOST:PORT")]
    target: Option<String>,
}

// === impl DemoCommand ===

impl DemoCommand {
    /// Runs the demo and prints its summary: a table unless `--json` is set, then one line of JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: a call failed, or a device has no result or more than one.
    pub fn run(self) -> Result<(), ExitError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let report = runtime.block_on(self.run_demo());
        let report = report.map_err(|error| ExitError::failure(format!("demo failed: {error}")))?;
        if !self.json {
            print_line(&report.table())?;
        }
        print_line(&serde_json::to_string(&report).map_err(ExitError::failure)?)?;
        if report.is_complete() { Ok(()) } else { Err(ExitError::silent()) }
    }

    async fn run_demo(&self) -> Result<DemoReport, Box<dyn Error>> {
        let print: Print = if self.json { |_| Ok(()) } else { |text| Ok(print_line(text)?) };
        let devices = self.devices;
        if let Some(target) = &self.target {
            return Demo { target, devices, print, telemetry: None }.run().await;
        }
        let gateway = DemoGateway::start().await?;
        let target = &gateway.target;
        print(&format!(
            "A gateway is listening on {target}. It uses a sandbox instead of ThingSpace."
        ))?;
        let telemetry = Some(&gateway.telemetry);
        let report = Demo { target, devices, print, telemetry }.run().await;
        gateway.shutdown.cancel();
        gateway.task.await?;
        report
    }
}
