//! `demo`: changes some plans on a gateway with a sandbox, through real gRPC,
//! and shows the results arriving.

use std::{
    collections::HashSet,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::{config::load_and_check, write_line};
use crate::{
    app::App,
    config::{LogFormat, Mode, Sources, TelemetryConfig},
    proto::{self, gateway_service_client::GatewayServiceClient, watch_request_response::Event},
    telemetry::Telemetry,
};

/// The account that the demo changes plans in.
const ACCOUNT: &str = "0000123456-00001";

/// What the demo found: the last line of `demo --json`.
#[derive(Debug, Serialize)]
struct DemoReport {
    changes: Vec<ChangeReport>,
    elapsed_ms: u128,
}

/// What became of one change.
#[derive(Debug, Serialize)]
struct ChangeReport {
    change_type: &'static str,
    change_id: String,
    request_ids: Vec<String>,
    devices: u32,
    succeeded: i32,
    failed: i32,
    /// Results that were delivered more than once.
    duplicates: usize,
    /// Devices without a result.
    missing: usize,
}

type Client = GatewayServiceClient<Channel>;

/// Runs the demo; exit code 0 when every device of both changes had exactly one
/// result.
///
/// # Errors
///
/// What the writers say, and what the runtime lacks.
pub fn run(
    devices: u32,
    json: bool,
    target: Option<String>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        match target {
            Some(target) => run_changes(&target, devices, json).await,
            None => run_with_embedded_gateway(devices, json).await,
        }
    });
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            write_line(err, &format!("the demo failed: {why}"))?;
            return Ok(1);
        }
    };
    if json {
        let line = serde_json::to_string(&report).map_err(io::Error::other)?;
        write_line(out, &line)?;
    } else {
        write_line(out, &report.table())?;
    }
    let complete = |change: &ChangeReport| change.duplicates == 0 && change.missing == 0;
    Ok(u8::from(!report.changes.iter().all(complete)))
}

/// On a gateway with a sandbox that live as long as the demo.
async fn run_with_embedded_gateway(devices: u32, json: bool) -> Result<DemoReport, String> {
    let telemetry = Telemetry::init(&TelemetryConfig {
        log_format: LogFormat::Auto,
        log_filter: "warn".into(),
        otlp_endpoint: None,
        otlp_protocol: None,
    });
    let telemetry = telemetry.map_err(|error| error.to_string())?;
    let app = start_gateway(telemetry).await?;
    let grpc = app.addresses().grpc;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(app.run(shutdown.clone()));
    let report = run_changes(&grpc.to_string(), devices, json).await;
    shutdown.cancel();
    running.await.map_err(|error| error.to_string())?;
    report
}

/// Changes the plans on a gateway.
async fn run_changes(target: &str, devices: u32, json: bool) -> Result<DemoReport, String> {
    let started = Instant::now();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{target}"))
        .map_err(|error| format!("{target}: {error}"))?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| format!("{target}: {error}"))?;
    let mut client = GatewayServiceClient::new(channel);
    let mut changes = Vec::new();
    for change_type in [proto::ChangeType::EsimPlan, proto::ChangeType::FiveGBiPlan] {
        let changed = run_change(&mut client, change_type, devices, json).await;
        changes.push(changed.map_err(|status| status.to_string())?);
    }
    Ok(DemoReport {
        changes,
        elapsed_ms: started.elapsed().as_millis(),
    })
}

/// A gateway and a sandbox on free loopback ports. Some devices fail, and some
/// callbacks are sent twice, as it happens.
async fn start_gateway(telemetry: Telemetry) -> Result<App, String> {
    let settings = [
        ("grpc.listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
        ("sandbox.failure_rate", "0.1"),
        ("sandbox.duplicate_rate", "0.1"),
        ("sandbox.order", "shuffled"),
        ("sandbox.callback_concurrency", "64"),
        ("shutdown.grace", "5s"),
    ];
    let sources = settings
        .into_iter()
        .fold(Sources::default(), |sources, (key, value)| {
            sources.with_flag(key, value)
        });
    let loaded = load_and_check(&sources, Mode::ServeSandbox).map_err(|error| error.to_string())?;
    App::build(loaded.config, Mode::ServeSandbox, telemetry)
        .await
        .map_err(|error| error.to_string())
}

/// Changes the plan of so many devices, and watches until all have answered.
async fn run_change(
    client: &mut Client,
    change_type: proto::ChangeType,
    devices: u32,
    json: bool,
) -> Result<ChangeReport, Status> {
    let idempotency_key = uuid::Uuid::new_v4().to_string();
    let change = if change_type == proto::ChangeType::EsimPlan {
        let request = esim_request(devices, idempotency_key);
        client.change_esim_plan(request).await?.into_inner().change
    } else {
        let request = five_g_bi_request(devices, idempotency_key);
        client
            .change_five_g_bi_plan(request)
            .await?
            .into_inner()
            .change
    };
    let change = change.unwrap_or_default();
    let bar = progress(devices, change_type, json);
    let request = proto::WatchRequestRequest {
        change_id: change.change_id,
        until: proto::Until::Finished.into(),
        ..proto::WatchRequestRequest::default()
    };
    let mut stream = client.watch_request(request).await?.into_inner();
    let mut answered = HashSet::new();
    let mut duplicates = 0;
    let mut last = proto::Change::default();
    while let Some(message) = stream.message().await? {
        match message.event {
            Some(Event::DeviceResult(result)) => match result.device_index {
                Some(index) if answered.insert(index) => bar.inc(1),
                _ => duplicates += 1,
            },
            Some(Event::Finished(finished)) => last = finished.change.unwrap_or_default(),
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(ChangeReport {
        change_type: change_type.as_str_name(),
        change_id: last.change_id,
        request_ids: last.request_ids,
        devices,
        succeeded: last.succeeded_count,
        failed: last.failed_count,
        duplicates,
        missing: usize::try_from(devices).unwrap_or(usize::MAX) - answered.len(),
    })
}

fn progress(devices: u32, change_type: proto::ChangeType, json: bool) -> ProgressBar {
    let target = if json || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(u64::from(devices)), target);
    let template = "{prefix:27} [{bar:40}] {pos}/{len} results {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(change_type.as_str_name());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Identifiers are in the ranges that the sandbox keeps for itself.
fn esim_request(devices: u32, idempotency_key: String) -> proto::ChangeEsimPlanRequest {
    let devices = (0..devices).map(|number| proto::EsimDevice {
        eid: format!("99{number:030}"),
        iccid: format!("9994{number:016}"),
        client_reference: format!("row-{number}"),
    });
    proto::ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "Demo Plan".into(),
        devices: devices.collect(),
        idempotency_key,
        ..proto::ChangeEsimPlanRequest::default()
    }
}

fn five_g_bi_request(devices: u32, idempotency_key: String) -> proto::ChangeFiveGBiPlanRequest {
    let place = proto::PrimaryPlaceOfUse {
        address: Some(proto::Address {
            address_line1: "1 Main St".into(),
            city: "Dallas".into(),
            state: "TX".into(),
            zip: "75001".into(),
            ..proto::Address::default()
        }),
        customer_name: Some(proto::CustomerName {
            first_name: "Ada".into(),
            last_name: "Lovelace".into(),
            ..proto::CustomerName::default()
        }),
    };
    let devices = (0..devices).map(|number| proto::FiveGBiDevice {
        device_ids: vec![proto::DeviceId {
            kind: "meid".into(),
            id: format!("FF00000{number:07X}"),
        }],
        primary_place_of_use: Some(place.clone()),
        client_reference: format!("row-{number}"),
    });
    proto::ChangeFiveGBiPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "DEMOPLAN".into(),
        devices: devices.collect(),
        idempotency_key,
        ..proto::ChangeFiveGBiPlanRequest::default()
    }
}

// === impl Report ===

impl DemoReport {
    fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:27}  {:36}  {:>7}  {:>9}  {:>6}  {:>10}  {:>7}",
            "CHANGE TYPE", "CHANGE", "DEVICES", "SUCCEEDED", "FAILED", "DUPLICATES", "MISSING"
        )];
        for change in &self.changes {
            lines.push(format!(
                "{:27}  {:36}  {:>7}  {:>9}  {:>6}  {:>10}  {:>7}",
                change.change_type,
                change.change_id,
                change.devices,
                change.succeeded,
                change.failed,
                change.duplicates,
                change.missing
            ));
        }
        lines.push(format!(
            "\nAll results arrived over gRPC in {} ms.\n\
             By default, the sandbox fails about one device in ten and sends one callback in ten twice.",
            self.elapsed_ms
        ));
        lines.join("\n")
    }
}
