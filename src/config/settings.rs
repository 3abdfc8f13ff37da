//! The table of all settings, and their types. `docs/settings.md` is generated from it with
//! `cargo run -- config docs > docs/settings.md`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use thingspace_settings::{
    DurationRange, FilePath, HttpUrl, Number, Secret, SocketAddress, Switch, any_of, choices,
    list_of, one_of, settings,
};
use url::Url;

use crate::{
    config::kinds::{
        CALLBACK_CREDENTIAL, CREDENTIAL, ClaimText, LogFilter, Origin, PATH_SECRET, POSTGRES_URL,
        WEBHOOK_URL,
    },
    domain::newtypes::{AccountName, CallbackService},
};

/// Host of Verizon's production service.
const PRODUCTION_HOST: &str = "thingspace.verizon.com";

settings! {
    /// All settings of the program. [`Config::load`] checks each of them, and
    /// [`Config::check_for`] checks their combinations.
    Config, variables "TSGW_";

    /// The port for gRPC clients.
    grpc: GrpcConfig {
        /// Address and port of the gRPC service. Port 0 selects a free port, which the first lines
        /// of the log show.
        listen: SocketAddr = WithDefault(SocketAddress) or "0.0.0.0:50051";
        /// Age at which the gateway closes a client's connection gracefully. Clients then reconnect
        /// and spread over new replicas. Each connection gets up to a tenth less, at random.
        max_connection_age: Duration = WithDefault(DurationRange { min: "1s", max: "7d" }) or "30m";
        /// Age at which the gateway ends a watch with the reason RECONNECT. The client resumes it
        /// with its resume token. Each watch gets up to a tenth less, at random. Must be less
        /// than `grpc.max_connection_age`.
        max_stream_age: Duration = WithDefault(DurationRange { min: "1s", max: "7d" }) or "25m";
        /// Maximum time between two events of a watch. While a watch has no other event, the gateway
        /// sends a bookmark, up to a third earlier at random. Set it below the idle timeouts of the
        /// proxies between the clients and the gateway (docs/mesh.md). The client libraries take 90 s
        /// without an event as a broken stream.
        bookmark_interval: Duration = WithDefault(DurationRange { min: "1s", max: "60s" }) or "30s";
        /// Maximum size of a request message, in bytes. The default is enough for 10,000 devices
        /// with their addresses.
        max_message_bytes: usize = WithDefault(Number { min: 65_536, max: 268_435_456 }) or "16777216";
        /// PEM file with the certificate of the gRPC port, followed by its intermediate certificates.
        /// With this and `grpc.tls_key_file`, the port accepts only TLS. The gateway reads the TLS
        /// files again when they change.
        tls_cert_file: Option<PathBuf> = Optional(FilePath);
        /// PEM file with the private key of the certificate.
        tls_key_file: Option<PathBuf> = Optional(FilePath);
        /// PEM file with the certificate authorities that sign client certificates. The gateway then
        /// asks each client for a certificate, and refuses a connection whose certificate is not valid.
        /// With `auth.mode` = `mtls` alone, it also refuses a connection without a certificate.
        tls_client_ca_file: Option<PathBuf> = Optional(FilePath);
        /// Also serves gRPC-Web and JSON on this port, over HTTP/1.1 and HTTP/2, for browsers and for
        /// programs without gRPC (docs/http.md).
        http: bool = WithDefault(Switch) or "true";
        /// The origins of the web pages that may call the gateway, separated by commas. A page of
        /// another origin cannot, with any credential. Programs other than browsers send no origin.
        allowed_origins: Vec<Origin> = WithDefault(list_of::<Origin>()) or "";
    }

    /// The port on which ThingSpace delivers results.
    callbacks: CallbacksConfig {
        /// Address and port of the callback listener. Port 0 selects a free port. ThingSpace only
        /// calls certain ports, such as 9001. With `serve --sandbox` the default is `127.0.0.1:0`.
        listen: SocketAddr = WithDefault(SocketAddress) or "0.0.0.0:9001";
        /// URL at which ThingSpace reaches the callback listener, in front of all proxies. The
        /// gateway appends `/accounts/…` and `/callbacks/…`. With `thingspace.accounts`, the
        /// gateway compares this URL with the registered ones.
        public_url: Option<Url> = Optional(HttpUrl);
        /// Registration of the callback URL for `thingspace.accounts`. `never` only reports
        /// registrations that do not point to `callbacks.public_url`. `if_unclaimed` registers the
        /// URL where none is registered. `replace` also replaces another URL, which then gets no
        /// more callbacks.
        register: RegisterPolicy = WithDefault(one_of::<RegisterPolicy>()) or "never";
        /// User name that ThingSpace sends in the body of each callback. Needs
        /// `callbacks.password`.
        username: Option<Secret> = Sensitive(CALLBACK_CREDENTIAL);
        /// Password that ThingSpace sends in the body of each callback. Needs `callbacks.username`.
        password: Option<Secret> = Sensitive(CALLBACK_CREDENTIAL);
        /// User name that was registered before the current one. The gateway accepts it during a
        /// rotation: ThingSpace was observed to send the previous credentials for up to 14 minutes.
        previous_username: Option<Secret> = Sensitive(CALLBACK_CREDENTIAL);
        /// Password that was registered before the current one. Needs
        /// `callbacks.previous_username`.
        previous_password: Option<Secret> = Sensitive(CALLBACK_CREDENTIAL);
        /// Secret in the last segment of the registered callback URL.
        path_secret: Option<Secret> = Sensitive(PATH_SECRET);
        /// Networks that callbacks come from. An empty list allows any address.
        allow_cidrs: Vec<IpNet> = WithDefault(list_of::<IpNet>()) or "";
        /// Treatment of callbacks from addresses outside `callbacks.allow_cidrs`. `report` accepts
        /// a callback if its path secret or credentials are correct, and reports it. `enforce`
        /// rejects it. Verizon changes its addresses from time to time.
        allow_mode: AllowMode = WithDefault(one_of::<AllowMode>()) or "report";
        /// Number of trusted proxies in front of the callback listener that append their caller to
        /// `X-Forwarded-For`. With 0, the gateway does not read this header.
        trusted_hops: u8 = WithDefault(Number { min: 0, max: 16 }) or "0";
        /// Allows a callback listener that other hosts can reach to have neither path secret nor
        /// credentials.
        insecure: bool = WithDefault(Switch) or "false";
        /// Callback services whose callbacks must carry the credentials, if these are set.
        /// `CarrierService` and `DeviceProfileService` report results; one of them that is not
        /// listed may omit the credentials, but must not send wrong ones. All other services must
        /// send them.
        require_password: Vec<CallbackService> = WithDefault(list_of::<CallbackService>()) or "CarrierService";
        /// Maximum size of the quarantine, in bytes. When it is full, the gateway rejects callbacks
        /// that belong in it. It never deletes an entry that has not been listed.
        quarantine_max_bytes: u64 = WithDefault(Number { min: 0, max: 1_099_511_627_776_u64 }) or "67108864";
        /// Webhook to which the gateway forwards each stored callback until it responds 2xx. The
        /// body contains `callbacks.username` and `callbacks.password`. `{service}` in the path or
        /// the query stands for the name of the callback service.
        forward_url: Option<Secret> = Sensitive(WEBHOOK_URL);
        /// Age at which the gateway drops a callback that it could not forward.
        forward_max_age: Duration = WithDefault(DurationRange { min: "1s", max: "365d" }) or "3d";
        /// Maximum number of callbacks that wait to be forwarded. Beyond it, the gateway drops the
        /// oldest. The webhook never delays the response to a callback.
        forward_max_waiting: u64 = WithDefault(Number { min: 1, max: 10_000_000 }) or "100000";
        /// PEM file with the certificate chain of the callback listener. With this and
        /// `callbacks.tls_key_file`, the listener accepts only TLS. ThingSpace requires a
        /// certificate of a public certificate authority.
        tls_cert_file: Option<PathBuf> = Optional(FilePath);
        /// PEM file with the private key of the certificate.
        tls_key_file: Option<PathBuf> = Optional(FilePath);
    }

    /// The port and the socket for operators and monitoring.
    admin: AdminConfig {
        /// Address and port of `/livez`, `/readyz` and `/metrics`, and of gRPC health for the
        /// kubelet. The port speaks plain HTTP and is read-only. Port 0 selects a free port.
        listen: SocketAddr = WithDefault(SocketAddress) or "0.0.0.0:9090";
        /// Unix socket on which the running gateway serves `OperatorService`, for the commands `status`,
        /// `changes`, `quarantine`, `thingspace` and `log`. Unset: `admin.sock` in `journal.dir`.
        socket: Option<PathBuf> = Optional(FilePath);
    }

    /// The console: a web page for operators (docs/console.md).
    console: ConsoleConfig {
        /// Address and port of the console. It has the TLS, the authentication and the policy of the
        /// gRPC port, and serves no call that makes a change. Unset: no console. Port 0 selects a free
        /// port.
        listen: Option<SocketAddr> = Optional(SocketAddress);
    }

    /// The connection to ThingSpace. The four credentials are required, except with a sandbox.
    thingspace: ThingSpaceConfig {
        /// Base URL of the ThingSpace API. The gateway appends `/ts/v1/oauth2/token` and
        /// `/m2m/v1/…`. Plain `http` is allowed, for tests.
        base_url: Url = WithDefault(HttpUrl) or "https://thingspace.verizon.com/api";
        /// Key of the ThingSpace application.
        app_key: Option<Secret> = Sensitive(CREDENTIAL);
        /// Secret of the ThingSpace application.
        app_secret: Option<Secret> = Sensitive(CREDENTIAL);
        /// User name of the UWS account for the session.
        uws_username: Option<Secret> = Sensitive(CREDENTIAL);
        /// Password of the UWS account for the session. ThingSpace locks the account after five
        /// failed log-ins.
        uws_password: Option<Secret> = Sensitive(CREDENTIAL);
        /// HTTP method of the 5G Business Internet plan change. Verizon's documentation contradicts
        /// itself about it.
        five_g_bi_http_method: FiveGBiHttpMethod = WithDefault(one_of::<FiveGBiHttpMethod>()) or "POST";
        /// Maximum number of plan changes that the gateway sends in a minute: all replicas
        /// together, if they share a journal. A call waits for its turn until its deadline; if the
        /// turn would come later, the gateway rejects the call with THROTTLED. 100 is the
        /// documented rate limit of a similar call. With `serve --sandbox` the default is 100000.
        changes_per_minute: u32 = WithDefault(Number { min: 1, max: 100_000 }) or "100";
        /// Maximum number of lookups of requests, devices, registrations and service plans that the
        /// gateway sends in a minute: all replicas together, if they share a journal. Calls of
        /// `ListServicePlans` can use half of it, those of one caller a quarter.
        lookups_per_minute: u32 = WithDefault(Number { min: 1, max: 100_000 }) or "60";
        /// Billing accounts whose callback registrations the gateway checks every five minutes.
        /// Needs `callbacks.public_url`.
        accounts: Vec<AccountName> = WithDefault(list_of::<AccountName>()) or "";
        /// Timeout of a request to ThingSpace, from connecting to the last byte of the response.
        request_timeout: Duration = WithDefault(DurationRange { min: "100ms", max: "10m" }) or "60s";
    }

    /// Rules for changes, and how long the gateway waits for their results.
    changes: ChangesConfig {
        /// Rejects a change without an `idempotency_key`. Without a key, a retry by a service mesh
        /// or a gRPC library is a second change.
        require_key: bool = WithDefault(Switch) or "true";
        /// Maximum number of devices of a change, and so of a request to ThingSpace.
        max_devices_per_request: u32 = WithDefault(Number { min: 1, max: 10_000 }) or "10000";
        /// Time without further results after which the gateway attributes an unknown request to a
        /// change whose response was lost. The results of the request must name exactly the devices
        /// of the change. For eSIM, the gateway also waits for ThingSpace's own list of the
        /// devices. The time starts again after a start of the gateway.
        attribution_quiet_period: Duration = WithDefault(DurationRange { min: "0s", max: "1d" }) or "5s";
        /// Time after the acceptance of a change after which the gateway looks up missing results. It
        /// repeats the lookup with a delay that doubles each time, up to six hours. After a start, it looks
        /// them up at once and a minute later.
        reconcile_after: Duration = WithDefault(DurationRange { min: "1s", max: "365d" }) or "15m";
        /// Time after which an accepted change with missing results becomes OVERDUE.
        overdue_after: Duration = WithDefault(DurationRange { min: "1s", max: "365d" }) or "24h";
        /// Time after which the gateway stops waiting for results: the change becomes CLOSED, and
        /// its remaining devices stay unresolved. For an OVERDUE change, the time starts with its
        /// acceptance. The setting also applies to changes with an unknown outcome.
        close_after: Duration = WithDefault(DurationRange { min: "1s", max: "3650d" }) or "7d";
    }

    /// Bounds on the work in progress for all clients together. docs/limits.md describes the memory
    /// that they need. The gateway rejects what exceeds a bound; clients may retry it.
    limits: LimitsConfig {
        /// Maximum number of change calls, and of changes in progress. A change is in progress from
        /// before the gateway claims its idempotency key until the response of ThingSpace is in the
        /// journal.
        inflight_changes: usize = WithDefault(Number { min: 1, max: 1_000_000_usize }) or "2000";
        /// Maximum number of devices of all changes in progress. At least
        /// `changes.max_devices_per_request`.
        devices: usize = WithDefault(Number { min: 1, max: 10_000_000_usize }) or "100000";
        /// Maximum size of the messages of all change calls, in bytes, from their first byte until
        /// they are validated. At least `grpc.max_message_bytes`. A call that finds no space for its
        /// next bytes is rejected at once.
        message_bytes: usize = WithDefault(Number { min: 65_536, max: 4_294_967_295_usize }) or "33554432";
        /// Maximum number of calls that only read, such as `GetChange`, `ListChanges` and
        /// `ListDeviceResults`.
        reads: usize = WithDefault(Number { min: 1, max: 1_000_000_usize }) or "1000";
        /// Maximum number of open streams: watches, and streams of gRPC health and reflection.
        watches: usize = WithDefault(Number { min: 1, max: 1_000_000_usize }) or "5000";
        /// Maximum size of all callbacks that are being received or stored, in bytes.
        callback_bytes: usize = WithDefault(Number { min: 1_048_576, max: 4_294_967_295_usize }) or "33554432";
    }

    /// The storage of changes and results.
    journal: JournalConfig {
        /// Storage engine of the journal. `sqlite` is SQLite in one directory, for one replica.
        /// `postgres` is a PostgreSQL database, for any number of replicas.
        engine: JournalEngine = WithDefault(one_of::<JournalEngine>()) or "sqlite";
        /// URL of the PostgreSQL database, such as
        /// `postgresql://gateway@db1,db2/gateway?sslmode=verify-full`. The gateway uses the first
        /// host that accepts writes. TLS is on, and verifies the server, unless all hosts are on
        /// this machine or the URL has `sslmode=disable`. `sslrootcert` names the certificates to
        /// verify with, in place of those of the system.
        url: Option<Secret> = Sensitive(POSTGRES_URL);
        /// Password of the PostgreSQL user, if the URL has none. A file is read at each
        /// connection, so that a rotation takes effect.
        password: Option<Secret> = Sensitive(CREDENTIAL);
        /// Maximum number of connections of this replica to PostgreSQL: one writes, one listens,
        /// the others read.
        max_connections: usize = WithDefault(Number { min: 3, max: 1_000_usize }) or "8";
        /// Required durability of PostgreSQL. With `synced`, the gateway does not start on a server
        /// on which a commit does not survive a power loss. `relaxed` accepts it: a crash of the
        /// server can lose acknowledged results, and changes can be sent twice.
        durability: RequiredDurability = WithDefault(one_of::<RequiredDurability>()) or "synced";
        /// Directory of the embedded journal, and of the admin socket. The gateway creates it if it
        /// does not exist. With `serve --sandbox` the default is a temporary directory.
        dir: PathBuf = WithDefault(FilePath) or "./data";
        /// Time for which the journal keeps a change, its results and its idempotency key after its
        /// last event. At least `changes.close_after`. After a jump of the system clock, the journal
        /// removes nothing for three days.
        retention: Duration = WithDefault(DurationRange { min: "1m", max: "3650d" }) or "400d";
        /// Directory of the spool, which keeps callbacks while the journal cannot store them. The
        /// gateway answers them 200, and moves them to the journal later. Use a disk that survives
        /// restarts. Must differ from `journal.dir`. Unset: such callbacks are answered 503.
        spool_dir: Option<PathBuf> = Optional(FilePath);
        /// Maximum size of the spool, in bytes. While it is full, callbacks are answered 503.
        spool_max_bytes: u64 = WithDefault(Number { min: 1_048_576, max: 1_099_511_627_776_u64 }) or "1073741824";
        /// Allows the journal and the spool on a network file system. Its locks and syncs may be
        /// unreliable.
        allow_network_filesystem: bool = WithDefault(Switch) or "false";
    }

    /// The authentication of clients.
    auth: AuthConfig {
        /// Credentials that the gateway accepts from clients. `none`, or an unset value, accepts every
        /// client that can reach the port. It stands alone. `mtls` accepts client certificates, `jwt` bearer
        /// tokens, and `mesh` the header of a service mesh. docs/access.md describes them. The
        /// setting is required if clients on a network can change real plans: with Verizon's base
        /// URL and a `grpc.listen` or a `console.listen` that is not loopback.
        mode: Option<Vec<AuthMode>> = Optional(any_of::<AuthMode>());
        /// Issuer of bearer tokens: the exact value of their claim `iss`.
        jwt_issuer: Option<String> = Optional(ClaimText);
        /// Audience of bearer tokens. Their claim `aud` must be this text or contain it.
        jwt_audience: Option<String> = Optional(ClaimText);
        /// Signature algorithms of bearer tokens.
        jwt_algorithms: Vec<JwtAlgorithm> = WithDefault(any_of::<JwtAlgorithm>()) or "RS256, ES256, EdDSA";
        /// File with the public keys of the issuer, as a JSON Web Key Set. The gateway reads it
        /// again every two seconds.
        jwt_jwks_file: Option<PathBuf> = Optional(FilePath);
        /// URL of the issuer's public keys, as a JSON Web Key Set: `https`, or `http` to a loopback
        /// address. The gateway reads it again every minute, and when a token names an unknown key.
        jwt_jwks_url: Option<Url> = Optional(HttpUrl);
        /// Largest difference between the clocks of the issuer and the gateway. Tokens are accepted
        /// this much before `nbf` and after `exp`.
        jwt_leeway: Duration = WithDefault(DurationRange { min: "0s", max: "5m" }) or "30s";
        /// Header in which the proxies of a service mesh name the client: Envoy's
        /// `x-forwarded-client-cert` or Linkerd's `l5d-client-id`.
        mesh_header: Option<MeshHeader> = Optional(one_of::<MeshHeader>());
        /// Networks of the mesh's proxies. The gateway ignores `auth.mesh_header` in calls from any
        /// other address. Everyone in these networks can call under any name.
        mesh_trusted_cidrs: Vec<IpNet> = WithDefault(list_of::<IpNet>()) or "";
        /// File with the permissions of clients, in TOML (docs/access.md). The gateway reads it
        /// again when it changes. Required if clients are authenticated, and only then.
        policy_file: Option<PathBuf> = Optional(FilePath);
    }

    /// The audit log: one record for each call of a client and for each command of an operator.
    audit: AuditConfig {
        /// Destination of the audit log. `file` is a file that the gateway rotates and syncs. `stdout` is
        /// the standard output, for a collector of the platform. While the audit log cannot be written,
        /// the gateway rejects changes and commands of operators.
        output: AuditOutput = WithDefault(one_of::<AuditOutput>()) or "none";
        /// File of the audit log. Needs `audit.output = file`. The gateway appends a number to the names
        /// of rotated files. Unset: `audit.log` in `journal.dir`.
        file: Option<PathBuf> = Optional(FilePath);
        /// Size at which the gateway rotates the file of the audit log, in bytes.
        max_bytes: u64 = WithDefault(Number { min: 1_048_576, max: 1_099_511_627_776_u64 }) or "67108864";
        /// Maximum number of files of the audit log, with the current one. Beyond it, the gateway deletes
        /// the oldest.
        max_files: u32 = WithDefault(Number { min: 2, max: 10_000 }) or "10";
    }

    /// The end of the process.
    shutdown: ShutdownConfig {
        /// Time for calls and callbacks in progress to finish after SIGTERM or SIGINT. The default
        /// is less than the 30 seconds that Kubernetes allows.
        grace: Duration = WithDefault(DurationRange { min: "100ms", max: "1h" }) or "25s";
    }

    /// Logs, traces and metrics.
    telemetry: TelemetryConfig {
        /// Format of the log on standard error. `auto` is `text` on a terminal and `json`
        /// otherwise.
        log_format: LogFormat = WithDefault(one_of::<LogFormat>()) or "auto";
        /// Log lines to write, in the syntax of tracing's `EnvFilter`.
        log_filter: String = WithDefault(LogFilter) or "info";
        /// Base URL of the OpenTelemetry collector for traces and metrics. Unset: the value of
        /// `OTEL_EXPORTER_OTLP_ENDPOINT`, or no export.
        otlp_endpoint: Option<Url> = Optional(HttpUrl);
        /// Protocol of the OpenTelemetry collector. Unset: the value of
        /// `OTEL_EXPORTER_OTLP_PROTOCOL`, or `http/protobuf` for port 4318 and `grpc` for any other
        /// port.
        otlp_protocol: Option<OtlpProtocol> = Optional(one_of::<OtlpProtocol>());
    }

    use sandbox: thingspace_sandbox::Settings;
}

choices! {
    /// Treatment of a callback from an address outside `callbacks.allow_cidrs`.
    AllowMode {
        /// Accepts the callback if its path secret or credentials are correct, and reports it.
        Report = "report",
        /// Rejects the callback.
        Enforce = "enforce",
    }

    /// Registration of the gateway's callback URL.
    RegisterPolicy {
        /// Only reports registrations that differ.
        Never = "never",
        /// Registers the URL where none is registered.
        IfUnclaimed = "if_unclaimed",
        /// Also replaces another URL.
        Replace = "replace",
    }

    /// HTTP method of the 5G BI plan change. Verizon's documentation contradicts itself about it.
    FiveGBiHttpMethod {
        /// `POST`.
        Post = "POST",
        /// `PUT`, as Verizon's SDKs send it.
        Put = "PUT",
    }

    /// Storage engine of the journal.
    JournalEngine {
        /// SQLite in one directory, for one replica.
        Sqlite = "sqlite",
        /// A PostgreSQL database, for any number of replicas.
        Postgres = "postgres",
    }

    /// Required durability of PostgreSQL.
    RequiredDurability {
        /// A commit survives a crash and a power loss of the server.
        Synced = "synced",
        /// A crash of the server can lose the latest commits.
        Relaxed = "relaxed",
    }

    /// A credential that clients are identified by.
    AuthMode {
        /// None: accepts every client that can reach the port.
        None = "none",
        /// A client certificate.
        Mtls = "mtls",
        /// A bearer token: a JSON Web Token.
        Jwt = "jwt",
        /// The header of a service mesh.
        Mesh = "mesh",
    }

    /// A signature algorithm of bearer tokens. All are asymmetric: a symmetric one, or none at all,
    /// cannot be configured.
    JwtAlgorithm {
        /// RSA with PKCS #1 v1.5 and SHA-256.
        Rs256 = "RS256",
        /// RSA with PKCS #1 v1.5 and SHA-384.
        Rs384 = "RS384",
        /// RSA with PKCS #1 v1.5 and SHA-512.
        Rs512 = "RS512",
        /// RSA with PSS and SHA-256.
        Ps256 = "PS256",
        /// RSA with PSS and SHA-384.
        Ps384 = "PS384",
        /// RSA with PSS and SHA-512.
        Ps512 = "PS512",
        /// ECDSA with P-256 and SHA-256.
        Es256 = "ES256",
        /// ECDSA with P-384 and SHA-384.
        Es384 = "ES384",
        /// Ed25519.
        EdDsa = "EdDSA",
    }

    /// Header of a service mesh that names the client.
    MeshHeader {
        /// Envoy and Istio.
        ForwardedClientCert = "x-forwarded-client-cert",
        /// Linkerd.
        LinkerdClientId = "l5d-client-id",
    }

    /// Destination of the audit log.
    AuditOutput {
        /// No audit log.
        None = "none",
        /// The standard output.
        Stdout = "stdout",
        /// A file.
        File = "file",
    }

    /// Format of the log.
    LogFormat {
        /// [`LogFormat::Text`] if standard error is a terminal, otherwise [`LogFormat::Json`].
        Auto = "auto",
        /// One JSON object per line.
        Json = "json",
        /// Human-readable lines.
        Text = "text",
    }

    /// Protocol of the OpenTelemetry collector.
    OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, with protobuf bodies.
        HttpProtobuf = "http/protobuf",
    }
}

impl Config {
    /// Path of the admin socket: `admin.socket`, or `admin.sock` in the journal's directory.
    pub fn admin_socket(&self) -> PathBuf {
        let default = || self.journal.dir.join("admin.sock");
        self.admin.socket.clone().unwrap_or_else(default)
    }

    /// Path of the audit log: `audit.file`, or `audit.log` in the journal's directory.
    pub fn audit_file(&self) -> PathBuf {
        let default = || self.journal.dir.join("audit.log");
        self.audit.file.clone().unwrap_or_else(default)
    }
}

impl AuthConfig {
    /// The accepted credentials. Never empty.
    pub fn modes(&self) -> &[AuthMode] {
        self.mode.as_deref().unwrap_or(&[AuthMode::None])
    }

    /// True if the gateway accepts these credentials.
    pub fn accepts(&self, mode: AuthMode) -> bool {
        self.modes().contains(&mode)
    }

    /// True if clients must authenticate.
    pub fn authenticates(&self) -> bool {
        !self.accepts(AuthMode::None)
    }
}

impl ThingSpaceConfig {
    /// True if the base URL is Verizon's production service, where changes affect real devices.
    pub fn is_production(&self) -> bool {
        let host = self.base_url.host_str();
        host.is_some_and(|host| host.trim_end_matches('.') == PRODUCTION_HOST)
    }
}
