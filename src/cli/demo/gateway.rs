//! A gateway and a sandbox that live as long as the demo.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, ShutdownOutcome},
    cli::settings_args::load_and_check,
    config::{Mode, Sources},
    telemetry::Telemetry,
};

/// Free loopback ports, only warnings in the log, and callbacks in random order.
const SETTINGS: [(&str, &str); 6] = [
    ("grpc.listen", "127.0.0.1:0"),
    ("admin.listen", "127.0.0.1:0"),
    ("sandbox.order", "shuffled"),
    ("sandbox.callback_concurrency", "64"),
    ("shutdown.grace", "5s"),
    ("telemetry.log_filter", "warn"),
];

/// A running gateway.
pub(super) struct DemoGateway {
    target: String,
    telemetry: Telemetry,
    shutdown: CancellationToken,
    task: JoinHandle<ShutdownOutcome>,
}

// === impl DemoGateway ===

impl DemoGateway {
    pub(super) async fn start() -> Result<Self, String> {
        let sources = Sources::default();
        let sources =
            SETTINGS.iter().fold(sources, |sources, (key, value)| sources.with_flag(*key, *value));
        let loaded =
            load_and_check(&sources, Mode::ServeSandbox).map_err(|error| error.to_string())?;
        let telemetry =
            Telemetry::init(&loaded.config.telemetry).map_err(|error| error.to_string())?;
        let app = App::build(loaded.config, Mode::ServeSandbox, telemetry.clone())
            .await
            .map_err(|error| error.to_string())?;
        let shutdown = CancellationToken::new();
        Ok(Self {
            target: app.addresses().grpc.to_string(),
            telemetry,
            task: tokio::spawn(app.run(shutdown.clone())),
            shutdown,
        })
    }

    /// Address of the gRPC port.
    pub(super) fn target(&self) -> String {
        self.target.clone()
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(super) async fn stop(self) -> Result<(), String> {
        self.shutdown.cancel();
        let stopped = self.task.await;
        stopped.map(|_outcome| ()).map_err(|error| error.to_string())
    }
}
