//! A gateway and a sandbox that live as long as the demo.

use std::error::Error;

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
    /// Address of the gRPC port.
    pub(super) target: String,
    pub(super) telemetry: Telemetry,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<ShutdownOutcome>,
}

// === impl DemoGateway ===

impl DemoGateway {
    pub(super) async fn start() -> Result<Self, Box<dyn Error>> {
        let with_flag = |sources: Sources, (key, value)| sources.with_flag(key, value);
        let sources = SETTINGS.into_iter().fold(Sources::default(), with_flag);
        let config = load_and_check(&sources, Mode::ServeSandbox)?.config;
        let telemetry = Telemetry::init(&config.telemetry)?;
        let shutdown = CancellationToken::new();
        let app = App::build(config, Mode::ServeSandbox, telemetry.clone(), shutdown.clone());
        let app = app.await?;
        Ok(Self {
            target: app.addresses().grpc.to_string(),
            telemetry,
            task: tokio::spawn(app.run(shutdown.clone())),
            shutdown,
        })
    }
}
