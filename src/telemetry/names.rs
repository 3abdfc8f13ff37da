//! Names of all metrics and attributes.
//!
//! Names of OpenTelemetry's semantic conventions (RPC and HTTP, v1.44) are used where they exist; all
//! others begin with `thingspace_gateway.`. `/metrics` uses Prometheus' spelling: dots become
//! underscores, and the unit and, for counters, `total` are appended. A test compares names, labels and
//! values with `docs/telemetry.md`.
//!
//! Attributes of metrics have closed sets of values: never an account, device, request or change.

/// Instrumentation scope of all instruments, and target of all spans.
pub const SCOPE: &str = "thingspace_gateway";

// === Metrics ===

/// Histogram, seconds: gRPC calls, until their status.
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";
/// Histogram, seconds: requests to ThingSpace, from connecting to the last byte.
pub const HTTP_CLIENT_REQUEST_DURATION: &str = "http.client.request.duration";
/// Histogram, seconds: requests to the callback listener.
pub const HTTP_SERVER_REQUEST_DURATION: &str = "http.server.request.duration";
/// Counter: callbacks by outcome. Each callback counts once.
pub const CALLBACKS: &str = "thingspace_gateway.callbacks";
/// Counter: callbacks stored after they were rejected with reason `store_timeout`.
pub const CALLBACKS_STORED_AFTER_TIMEOUT: &str =
    "thingspace_gateway.callbacks.stored_after_timeout";
/// Counter: callbacks accepted from addresses outside `callbacks.allow_cidrs`.
pub const CALLBACKS_OUTSIDE_ALLOW_CIDRS: &str = "thingspace_gateway.callbacks.outside_allow_cidrs";
/// Gauge, seconds since the Unix epoch: the last authenticated callback; 0 before the first one.
pub const CALLBACKS_LAST_TIME: &str = "thingspace_gateway.callbacks.last_time";
/// Gauge: callback services by the state of their registration.
pub const REGISTRATIONS: &str = "thingspace_gateway.registrations";
/// Counter: attempts to register the callback URL, by outcome.
pub const REGISTRATION_ATTEMPTS: &str = "thingspace_gateway.registration.attempts";
/// Counter: deliveries of callbacks to the webhook, by outcome.
pub const FORWARD_DELIVERIES: &str = "thingspace_gateway.forward.deliveries";
/// Gauge: callbacks pending for the webhook.
pub const FORWARD_PENDING: &str = "thingspace_gateway.forward.pending";
/// Gauge: callbacks in the spool that the journal does not have yet.
pub const SPOOL_CALLBACKS: &str = "thingspace_gateway.spool.callbacks";
/// Gauge: callbacks in the spool that cannot be moved to the journal.
pub const SPOOL_UNREADABLE: &str = "thingspace_gateway.spool.unreadable";
/// Gauge: bytes that the spool uses on disk, without its write-ahead log.
pub const SPOOL_BYTES: &str = "thingspace_gateway.spool.bytes";
/// Gauge, seconds: time since the arrival of the oldest callback in the spool.
pub const SPOOL_OLDEST_AGE: &str = "thingspace_gateway.spool.oldest_age";
/// Gauge: changes in the journal, by state.
pub const CHANGES: &str = "thingspace_gateway.changes";
/// Gauge, seconds: age of the oldest change that waits for results, since its acceptance.
pub const CHANGES_OLDEST_PENDING_AGE: &str = "thingspace_gateway.changes.oldest_pending_age";
/// Gauge, seconds: age of the oldest ACCEPTED change without a result, since its acceptance.
pub const CHANGES_OLDEST_WITHOUT_RESULT_AGE: &str =
    "thingspace_gateway.changes.oldest_without_result_age";
/// Gauge: requests that may belong to a change with an unknown outcome.
pub const ATTRIBUTION_REQUESTS: &str = "thingspace_gateway.attribution.requests";
/// Gauge, seconds: time for which the outcome of a change has been unknown, the longest.
pub const ATTRIBUTION_OLDEST_AGE: &str = "thingspace_gateway.attribution.oldest_age";
/// Gauge: callbacks in the quarantine.
pub const QUARANTINE_CALLBACKS: &str = "thingspace_gateway.quarantine.callbacks";
/// Gauge: size of the quarantine, in bytes.
pub const QUARANTINE_BYTES: &str = "thingspace_gateway.quarantine.bytes";
/// Gauge, 0 or 1: the gateway has stopped logging in after failed log-ins.
pub const LOGIN_LOCKED_OUT: &str = "thingspace_gateway.login.locked_out";
/// Gauge: failed log-ins since the last successful one.
pub const LOGIN_FAILURES: &str = "thingspace_gateway.login.failures";
/// Gauge, 0 or 1: the gateway has a token that has not expired.
pub const LOGIN_TOKEN_VALID: &str = "thingspace_gateway.login.token_valid";
/// Gauge, 0 or 1: the gateway has a session.
pub const LOGIN_SESSION_OPEN: &str = "thingspace_gateway.login.session_open";
/// Gauge: open watches.
pub const WATCHES_OPEN: &str = "thingspace_gateway.watches.open";
/// Gauge: open connections, by port.
pub const CONNECTIONS_OPEN: &str = "thingspace_gateway.connections.open";
/// Gauge: maximum number of open connections, by port.
pub const CONNECTIONS_LIMIT: &str = "thingspace_gateway.connections.limit";
/// Counter: connections that the gateway closed in favour of other clients, by port and reason.
pub const CONNECTIONS_CLOSED: &str = "thingspace_gateway.connections.closed";
/// Counter: calls that were refused because their caller could not be identified, by method and reason.
pub const AUTH_FAILURES: &str = "thingspace_gateway.auth.failures";
/// Histogram, seconds: writes to the journal, until the commit is synced.
pub const JOURNAL_WRITE_DURATION: &str = "thingspace_gateway.journal.write.duration";
/// Histogram: number of writes in one commit.
pub const JOURNAL_BATCH_SIZE: &str = "thingspace_gateway.journal.batch.size";
/// Gauge: change calls and reads in flight, by caller.
pub const CALLER_CALLS: &str = "thingspace_gateway.caller.calls";
/// Gauge: open streams, by caller.
pub const CALLER_STREAMS: &str = "thingspace_gateway.caller.streams";
/// Counter: calls refused at a limit of the caller, by caller and limit.
pub const CALLER_REFUSALS: &str = "thingspace_gateway.caller.refusals";
/// Counter: changes of the policy file, by outcome.
pub const POLICY_RELOADS: &str = "thingspace_gateway.policy.reloads";
/// Gauge: 1 while the policy file is not the policy in force.
pub const POLICY_STALE: &str = "thingspace_gateway.policy.stale";
/// Counter: TLS handshakes that failed, by port and reason.
pub const TLS_HANDSHAKES_FAILED: &str = "thingspace_gateway.tls.handshakes.failed";
/// Gauge, seconds since the Unix epoch: expiry of the certificates of a port.
pub const TLS_CERTIFICATE_EXPIRY: &str = "thingspace_gateway.tls.certificate.expiry";
/// Counter: writes to the journal that failed because it was unavailable.
pub const JOURNAL_ERRORS: &str = "thingspace_gateway.journal.errors";
/// Gauge, 0 or 1: the journal can be written.
pub const JOURNAL_WRITABLE: &str = "thingspace_gateway.journal.writable";
/// Gauge: size of the journal's database, in bytes.
pub const JOURNAL_BYTES: &str = "thingspace_gateway.journal.bytes";
/// Gauge: free space of the file system of `journal.dir`, in bytes.
pub const JOURNAL_FREE_BYTES: &str = "thingspace_gateway.journal.free_bytes";
/// Gauge: size of the file system of `journal.dir`, in bytes.
pub const JOURNAL_CAPACITY_BYTES: &str = "thingspace_gateway.journal.capacity_bytes";
/// Gauge, 0 or 1: this replica runs the background jobs.
pub const LEADER: &str = "thingspace_gateway.leader";
/// Gauge: replicas that share the journal.
pub const REPLICAS: &str = "thingspace_gateway.replicas";
/// Gauge, seconds: time since this replica renewed its lease.
pub const REPLICA_LEASE_AGE: &str = "thingspace_gateway.replica.lease_age";
/// Gauge: always 1. Its label is the version.
pub const BUILD_INFO: &str = "thingspace_gateway.build_info";
/// Counter: records of the audit log, by outcome.
pub const AUDIT_RECORDS: &str = "thingspace_gateway.audit.records";
/// Gauge: records that wait to be written to the audit log.
pub const AUDIT_QUEUE: &str = "thingspace_gateway.audit.queue";
/// Gauge: 1 while the audit log cannot be written, otherwise 0.
pub const AUDIT_FAILING: &str = "thingspace_gateway.audit.failing";
/// Counter: sampled spans that ended.
pub const TELEMETRY_SPANS_ENDED: &str = "thingspace_gateway.telemetry.spans.ended";
/// Counter: spans sent to the collector, by outcome.
pub const TELEMETRY_SPANS_EXPORTED: &str = "thingspace_gateway.telemetry.spans.exported";
/// Counter: exports of all metrics to the collector, by outcome.
pub const TELEMETRY_METRIC_EXPORTS: &str = "thingspace_gateway.telemetry.metric_exports";

// === Attributes ===

/// Always `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// `package.Service/Method`; [`OTHER`] for an unknown method.
pub const RPC_METHOD: &str = "rpc.method";
/// Name of the status, such as `OK`. Called `rpc.status_code` after v1.44 of the conventions.
pub const RPC_STATUS_CODE: &str = "rpc.response.status_code";
/// Class of the error. Absent on success.
pub const ERROR_TYPE: &str = "error.type";
/// Request method, such as `POST`; [`OTHER`] for an unknown one.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Status code, as a number.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Route template. Never the path, which contains a secret.
pub const HTTP_ROUTE: &str = "http.route";
/// Path template below ThingSpace's base URL.
pub const URL_TEMPLATE: &str = "url.template";
/// `http` or `https`.
pub const URL_SCHEME: &str = "url.scheme";
/// Host name of ThingSpace.
pub const SERVER_ADDRESS: &str = "server.address";
/// Port of ThingSpace.
pub const SERVER_PORT: &str = "server.port";
/// The change. On spans only.
pub const CHANGE_ID: &str = "thingspace_gateway.change_id";
/// ThingSpace's request ID. On spans only.
pub const REQUEST_ID: &str = "thingspace_gateway.request_id";
/// Outcome: `CallbackOutcome`, `RegistrationOutcome`, `DeliveryOutcome`, `PolicyReloadOutcome`, `AuditOutcome`
/// or `ExportOutcome`.
pub const OUTCOME: &str = "thingspace_gateway.outcome";
/// Port of the gateway: `Port`.
pub const PORT: &str = "thingspace_gateway.port";
/// Method that identifies a caller: `AuthMethod`.
pub const METHOD: &str = "thingspace_gateway.method";
/// Reason of an outcome or a failure: `RejectionReason`, `DropReason`, `CloseReason`, `HandshakeFailure` or
/// `AuthFailureReason`.
pub const REASON: &str = "thingspace_gateway.reason";
/// State of a change, a registration, a quarantined callback or a replica.
pub const STATE: &str = "thingspace_gateway.state";
/// Kind of journal write: `JournalOperation`.
pub const OPERATION: &str = "thingspace_gateway.operation";
/// Kind of certificate: `CertificateKind`.
pub const KIND: &str = "thingspace_gateway.kind";
/// Name of a caller of the policy file, or `anonymous`.
pub const CALLER: &str = "thingspace_gateway.caller";
/// Limit of a caller: a key of `limits` in the policy file.
pub const LIMIT: &str = "thingspace_gateway.limit";
/// Callback service: a `ResultService`, or `other`.
pub const SERVICE: &str = "thingspace_gateway.service";
/// Version of the gateway.
pub const SERVICE_VERSION: &str = "service.version";

/// Stands for a value outside a closed set.
pub const OTHER: &str = "_OTHER";
