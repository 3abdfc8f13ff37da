//! Compares all instruments with `docs/telemetry.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http::HeaderMap;

use super::{export::ExportCounters, *};
use crate::domain::{caller_name::CallerName, state::ChangeState};

/// Metric names, each with its labels and the values of each label.
type Metrics = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// False for labels of the semantic conventions, and for the callers, which the policy file names.
fn has_listed_values(label: &str) -> bool {
    label.starts_with("thingspace_gateway_") && label != "thingspace_gateway_caller"
}

/// Records all values of all labels.
fn record_everything(telemetry: &Telemetry) {
    let instruments = telemetry.instruments();
    RpcCall::begin(&instruments, "service/Method", &HeaderMap::new()).end(13);
    CallbackCall::begin(&instruments, &http::Method::POST, "/route", "http").record_response(500);
    let server = ("host", 443);
    UpstreamCall::begin(&instruments, &http::Method::POST, "/path", server, None).end(500);
    for outcome in CallbackOutcome::ALL {
        instruments.callback(outcome, None);
    }
    for reason in RejectionReason::ALL {
        instruments.callback(CallbackOutcome::Rejected, Some(reason));
    }
    instruments.callback_stored_after_timeout();
    instruments.callback_outside_allow_cidrs();
    for state in RegistrationState::ALL {
        instruments.registrations(state, 1);
    }
    for outcome in RegistrationOutcome::ALL {
        instruments.registration_attempt(outcome);
    }
    for outcome in DeliveryOutcome::ALL {
        instruments.deliveries(outcome, None, 1);
    }
    for reason in DropReason::ALL {
        instruments.deliveries(DeliveryOutcome::Dropped, Some(reason), 1);
    }
    for outcome in AuditOutcome::ALL {
        instruments.audit_records(outcome, 1);
    }
    for operation in JournalOperation::ALL {
        instruments.journal_write(operation, Duration::ZERO, true);
    }
    for port in Port::ALL {
        instruments.connections_limit(port, 1);
    }
    instruments.journal_batch(1);
    for port in Port::WITH_TLS {
        for kind in CertificateKind::ALL {
            instruments.certificate_expiry(port, kind, 1);
        }
    }
    drop(instruments.open_watch());
    for method in AuthMethod::ALL {
        for reason in method.failure_reasons() {
            instruments.auth_failure(method, *reason);
        }
    }
    let status = instruments.status();
    status.journal_file_system(1, 1);
    status.replicas(1, 1);
    status.lease_age(Duration::ZERO);
    telemetry.observe_changes(|| ChangeState::ALL.map(|state| (state.as_str(), 1)));
    telemetry.observe_forwards(|| 1);
    telemetry.observe_callers(|| {
        let limits = ["changes_per_minute", "devices_per_minute", "streams", "inflight_calls"];
        let refusals = limits.map(|limit| (limit, 1));
        vec![CallerGauges { caller: CallerName::anonymous(), calls: 1, streams: 1, refusals }]
    });
    telemetry.observe_spool(SpoolGauges::default);
    telemetry.observe_audit(AuditGauges::default);
    Arc::new(ExportCounters::default()).observe(&telemetry.meter);
}

fn exposed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            let name = header.split(' ').next().unwrap();
            metrics.insert(name.to_owned(), BTreeMap::new());
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, labels)) = line.split_once('{') else {
            continue;
        };
        let name =
            sample.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        let labels = labels.rsplit_once('}').unwrap().0.split("\",");
        for (label, value) in labels.filter_map(|pair| pair.split_once("=\"")) {
            if label != "le" {
                let values = metrics.get_mut(name).unwrap().entry(label.to_owned());
                let values = values.or_default();
                if has_listed_values(label) {
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

/// The rows of the manual: the first cell names the metric, the second has each label followed by its
/// values.
fn documented(manual: &str) -> Metrics {
    let section = manual.split("\n## Metrics").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    rows.map(|(name, cell)| {
        let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
        let mut label = String::new();
        for word in cell.split('`').skip(1).step_by(2) {
            if word.contains('_') && (has_listed_values(word) || is_conventional(word)) {
                word.clone_into(&mut label);
                labels.entry(word.to_owned()).or_default();
            } else {
                labels.entry(label.clone()).or_default().insert(word.to_owned());
            }
        }
        (name, labels)
    })
    .collect()
}

fn is_conventional(label: &str) -> bool {
    ["rpc_", "http_", "url_", "server_", "service_", "error_", "thingspace_gateway_caller"]
        .iter()
        .any(|prefix| label.starts_with(prefix))
}

#[test]
fn without_exported_traces_a_call_has_no_span_and_passes_the_trace_of_its_caller_on() {
    let telemetry = Telemetry::metrics_only().unwrap();
    let instruments = telemetry.instruments();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut metadata = HeaderMap::new();
    let call = RpcCall::begin(&instruments, "service/Method", &metadata);
    assert_eq!(call.span().traceparent(), None);

    metadata.insert(TRACEPARENT, traceparent.parse().unwrap());
    let call = RpcCall::begin(&instruments, "service/Method", &metadata);
    assert_eq!(call.span().traceparent().as_deref(), Some(traceparent));
    let server = ("host", 443);
    let begin =
        |caller| UpstreamCall::begin(&instruments, &http::Method::POST, "/path", server, caller);
    assert_eq!(begin(Some(traceparent)).traceparent().as_deref(), Some(traceparent));
    assert_eq!(begin(Some("malformed")).traceparent(), None);
    let callback = CallbackCall::begin(&instruments, &http::Method::POST, "/route", "http");
    assert!(!callback.is_sampled());
}

/// Histograms cannot exist before their first value. The others are present only with a setting, since a port was
/// opened, or since the state was first read.
const MAY_BE_ABSENT: [&str; 17] = [
    "http_",
    "rpc_",
    "thingspace_gateway_audit_failing",
    "thingspace_gateway_audit_queue",
    "thingspace_gateway_caller_",
    "thingspace_gateway_changes{",
    "thingspace_gateway_connections_",
    "thingspace_gateway_forward_pending",
    "thingspace_gateway_journal_batch_size",
    "thingspace_gateway_journal_capacity_bytes",
    "thingspace_gateway_journal_free_bytes",
    "thingspace_gateway_journal_write_duration",
    "thingspace_gateway_registrations{",
    "thingspace_gateway_replica",
    "thingspace_gateway_spool",
    "thingspace_gateway_telemetry",
    "thingspace_gateway_tls_certificate_expiry",
];

#[test]
fn every_series_that_dashboards_and_alerts_count_exists_from_the_start() {
    let telemetry = Telemetry::metrics_only().unwrap();
    let at_the_start = series(&telemetry);
    record_everything(&telemetry);
    let missing: Vec<_> = series(&telemetry).difference(&at_the_start).cloned().collect();
    let is_excused = |series: &String| {
        MAY_BE_ABSENT.iter().any(|prefix| series.starts_with(prefix))
            // An outcome without its reason: only this test records it.
            || ["quarantined", "rejected", "dropped"]
                .iter()
                .any(|outcome| series.ends_with(&format!("outcome=\"{outcome}\"}}")))
    };
    let missing: Vec<_> = missing.iter().filter(|series| !is_excused(series)).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

/// All series of counters and gauges.
fn series(telemetry: &Telemetry) -> BTreeSet<String> {
    let text = telemetry.exposition().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[test]
fn the_manual_lists_every_metric_with_its_labels_and_their_values() {
    let telemetry = Telemetry::metrics_only().unwrap();
    record_everything(&telemetry);
    let mut exposed = exposed(&telemetry.exposition().unwrap());
    // Its labels are the attributes of the resource.
    exposed.insert("target_info".into(), BTreeMap::new());
    let manual = include_str!("../../docs/telemetry.md");
    let documented = documented(manual);
    for (name, labels) in &exposed {
        assert_eq!(documented.get(name), Some(labels), "{name}");
    }
    assert_eq!(documented.len(), exposed.len());
}

#[test]
fn the_manual_explains_every_journal_operation_and_error_type() {
    let manual = include_str!("../../docs/telemetry.md");
    for operation in JournalOperation::ALL {
        let entry = format!("\n* `{}`: ", operation.name());
        assert!(manual.contains(&entry), "{}", operation.name());
    }
    for error in CallError::ALL {
        let name = format!("`{}`", error.name());
        assert!(manual.contains(&name), "{name}");
    }
}
