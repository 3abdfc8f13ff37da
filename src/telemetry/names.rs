//! The names of all metrics, attributes and spans.
//!
//! What OpenTelemetry's semantic conventions name is named so (RPC and HTTP, v1.44); all else begins
//! with `thingspace_gateway.`. `/metrics` shows them in Prometheus' spelling: dots become underscores,
//! a unit and, for counters, `total` are appended. `docs/telemetry.md` has both, and a test compares.
//!
//! No attribute takes an open set of values: never an account, a device, a request or a change on a
//! metric.

/// The instrumentation scope of all of them, and the target of all spans.
pub const SCOPE: &str = "thingspace_gateway";

// === Metrics ===

/// Histogram, seconds: a gRPC call, from its head to its status.
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";
/// Histogram, seconds: a call to ThingSpace, from connecting to the last byte.
pub const HTTP_CLIENT_REQUEST_DURATION: &str = "http.client.request.duration";
/// Histogram, seconds: a request to the callback listener.
pub const HTTP_SERVER_REQUEST_DURATION: &str = "http.server.request.duration";
/// Counter: callbacks by what became of them.
pub const CALLBACKS: &str = "thingspace_gateway.callbacks";
/// Counter: callbacks that were taken from outside the allow-list.
pub const CALLBACKS_UNLISTED: &str = "thingspace_gateway.callbacks.unlisted";
/// Gauge: guarded services of accounts, by where their callbacks are registered to go.
pub const CALLBACKS_LISTENERS: &str = "thingspace_gateway.callbacks.listeners";
/// Counter: registrations of this listener at ThingSpace, by what became of them.
pub const CALLBACKS_REGISTRATIONS: &str = "thingspace_gateway.callbacks.registrations";
/// Counter: callbacks that were to be passed on, by what became of them.
pub const CALLBACKS_FORWARDS: &str = "thingspace_gateway.callbacks.forwards";
/// Gauge: callbacks that wait to be passed on.
pub const CALLBACKS_FORWARDS_WAITING: &str = "thingspace_gateway.callbacks.forwards.waiting";
/// Gauge: changes on record, by state.
pub const CHANGES: &str = "thingspace_gateway.changes";
/// Gauge: open watches.
pub const WATCHES_OPEN: &str = "thingspace_gateway.watches.open";
/// Histogram, seconds: an append to the journal, from the request to the synced commit.
pub const JOURNAL_APPEND_DURATION: &str = "thingspace_gateway.journal.append.duration";
/// Histogram: appends that were committed together.
pub const JOURNAL_BATCH_SIZE: &str = "thingspace_gateway.journal.batch.size";
/// Counter: spans by what became of them on their way to the collector.
pub const TELEMETRY_SPANS: &str = "thingspace_gateway.telemetry.spans";
/// Counter: exports of all metrics to the collector.
pub const TELEMETRY_METRIC_EXPORTS: &str = "thingspace_gateway.telemetry.metric_exports";

// === Attributes ===

/// Always `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// `package.Service/Method`; `_OTHER` for what is not served.
pub const RPC_METHOD: &str = "rpc.method";
/// The status' name, such as `OK`. Called `rpc.status_code` after v1.44 of the conventions.
pub const RPC_STATUS_CODE: &str = "rpc.response.status_code";
/// What sort of failure it was; absent from what succeeded.
pub const ERROR_TYPE: &str = "error.type";
/// `POST`, say; `_OTHER` for an unknown method.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// The status code, as a number.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The route, with names for what varies: never the path, which has a secret in it.
pub const HTTP_ROUTE: &str = "http.route";
/// The path below ThingSpace's base URL, with names for what varies.
pub const URL_TEMPLATE: &str = "url.template";
/// `http` or `https`.
pub const URL_SCHEME: &str = "url.scheme";
/// The host that is called.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port that is called.
pub const SERVER_PORT: &str = "server.port";
/// On spans only: the change.
pub const CHANGE_ID: &str = "thingspace_gateway.change_id";
/// On spans only: ThingSpace's name for the request.
pub const REQUEST_ID: &str = "thingspace_gateway.request_id";
/// What became of it.
pub const OUTCOME: &str = "thingspace_gateway.outcome";
/// Why it was refused, by the names of docs/callbacks.md.
pub const REASON: &str = "thingspace_gateway.reason";
/// A state: a change's, or that of a listener's registration.
pub const STATE: &str = "thingspace_gateway.state";
/// What was appended.
pub const OPERATION: &str = "thingspace_gateway.operation";

/// What stands for a value outside a closed set.
pub const OTHER: &str = "_OTHER";
