//! The table of all settings. `docs/settings.md` is made from it: after a change here, run
//! `cargo run -- config docs > docs/settings.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::choices::{
    AllowMode, AuthMode, CallbackOrder, FiveGBiHttpMethod, JournalEngine, LogFormat, OtlpProtocol,
    Register, Resend,
};
use super::error::{ConfigError, Origin};
use super::kind::{
    Address, DAY, FilePath, HOUR, HttpUrl, LogFilter, MILLISECOND, MINUTE, Number, PlanName,
    SECOND, Span, Switch, one_of,
};
use super::load::Values;
use super::many::{Account, Many, Network, ServiceName};
use super::secret::{Rule, Secret};
use super::table::{Always, Group, Hidden, Maybe, Setting, Shown, settings};

settings! {
    /// The port that gRPC clients call.
    grpc: Grpc {
        /// Address and port of the gRPC service. Port 0 picks a free one; the first lines of the log
        /// say which.
        listen: SocketAddr = Always(Address) or "0.0.0.0:50051";
        /// Age at which a client's connection is closed in an orderly way, so that clients spread over
        /// new replicas; with jitter.
        max_connection_age: Duration = Always(Span { min: SECOND, max: 7 * DAY }) or "30m";
        /// Age at which a watch is ended with `reconnect`, to be resumed with its token; with
        /// jitter. Must be shorter than `grpc.max_connection_age`.
        max_stream_age: Duration = Always(Span { min: SECOND, max: 7 * DAY }) or "25m";
        /// Size of the largest request message, in bytes. The default lets 10,000 devices with their
        /// addresses in.
        max_message_bytes: usize = Always(Number { min: 65_536, max: 268_435_456 }) or "16777216";
    }

    /// The port where ThingSpace delivers results.
    callbacks: Callbacks {
        /// Address and port of the callback listener. Port 0 picks a free one. ThingSpace calls only
        /// certain ports, 9001 among them. With `serve --sandbox` the default is `127.0.0.1:0`.
        listen: SocketAddr = Always(Address) or "0.0.0.0:9001";
        /// Where ThingSpace reaches `callbacks.listen`: the address in front of every proxy, without
        /// `/accounts/…` or `/callbacks/…`, which are appended. With `thingspace.accounts` it is
        /// compared with what is registered there.
        public_url: Option<Url> = Maybe(HttpUrl);
        /// What is registered at ThingSpace by itself for `thingspace.accounts`: `never` only reports what
        /// does not point to `callbacks.public_url`, `if_unclaimed` registers where no listener is, and
        /// `replace` also over another one, which then gets no more callbacks.
        register: Register = Always(one_of::<Register>()) or "never";
        /// User name that ThingSpace puts into the body of each callback. Needs `callbacks.password`.
        username: Option<Secret> = Hidden(Rule::CALLBACK_CREDENTIAL);
        /// Password that ThingSpace puts into the body of each callback. Needs `callbacks.username`.
        password: Option<Secret> = Hidden(Rule::CALLBACK_CREDENTIAL);
        /// User name that was registered before the present one. It stays accepted while a change of
        /// credentials takes effect, for which ThingSpace was seen to take a quarter of an hour.
        previous_username: Option<Secret> = Hidden(Rule::CALLBACK_CREDENTIAL);
        /// Password that was registered before the present one. Needs `callbacks.previous_username`.
        previous_password: Option<Secret> = Hidden(Rule::CALLBACK_CREDENTIAL);
        /// Last segment of the path that is registered at ThingSpace, known to nobody else.
        path_secret: Option<Secret> = Hidden(Rule::PATH);
        /// Networks that callbacks come from. Empty: any address.
        allow_cidrs: Vec<IpNet> = Always(Many(Network)) or "";
        /// What happens to a callback from elsewhere: `report` stores it when its secret or password is
        /// right and reports it, `enforce` refuses it. ThingSpace's addresses change.
        allow_mode: AllowMode = Always(one_of::<AllowMode>()) or "report";
        /// Number of trusted proxies in front of the listener, each of which appends its caller to
        /// `X-Forwarded-For`. With 0 that header is not read.
        trusted_hops: u8 = Always(Number { min: 0, max: 16 }) or "0";
        /// Allows a listener that others can reach to go without path secret and password.
        insecure: bool = Always(Switch) or "false";
        /// Callback services whose callbacks must carry the user name and password, once these are set.
        /// Of the two that carry results, `CarrierService` and `DeviceProfileService`, one that is not
        /// listed may lack them, but must not carry wrong ones. All other names must carry them.
        require_password: Vec<String> = Always(Many(ServiceName)) or "CarrierService";
        /// Bytes that are kept of callbacks that came behind the right path secret and cannot be used. When
        /// there is no room they are refused, and what nobody has looked at is never dropped.
        quarantine_max_bytes: u64 = Always(Number { min: 0, max: 1_099_511_627_776_u64 }) or "67108864";
        /// Webhook that each callback is passed on to once it is stored, with `callbacks.username` and
        /// `callbacks.password` in its body, until it answers with 2xx. `{service}` in path or query
        /// stands for the callback service's name.
        forward_url: Option<Secret> = Hidden(Rule::URL);
        /// Time after which a callback that could not be passed on is given up.
        forward_max_age: Duration = Always(Span { min: SECOND, max: 365 * DAY }) or "3d";
        /// Callbacks that may wait to be passed on. Beyond that the oldest are given up: storing and
        /// answering a callback never depends on the webhook.
        forward_max_waiting: u64 = Always(Number { min: 1, max: 10_000_000 }) or "100000";
        /// PEM file with the listener's certificate chain. Set together with `callbacks.tls_key_file`
        /// it makes the listener speak TLS only; ThingSpace wants a certificate of a public authority.
        tls_cert_file: Option<PathBuf> = Maybe(FilePath);
        /// PEM file with the private key of the listener's certificate.
        tls_key_file: Option<PathBuf> = Maybe(FilePath);
    }

    /// The port for operators and their machinery.
    admin: Admin {
        /// Address and port of `/livez`, `/readyz` and `/metrics`, and of gRPC health for the kubelet:
        /// plain HTTP, read-only. Port 0 picks a free one.
        listen: SocketAddr = Always(Address) or "0.0.0.0:9090";
        /// Unix socket where operators' commands (`quarantine`, `thingspace unlatch`) reach the running
        /// gateway. Unset: `admin.sock` in `journal.dir`.
        socket: Option<PathBuf> = Maybe(FilePath);
    }

    /// How ThingSpace is called. The four credentials are required, except with a sandbox.
    thingspace: ThingSpace {
        /// Base URL of the API; its paths are `/ts/v1/oauth2/token` and `/m2m/v1/…` below it. Plain
        /// `http` is accepted, for tests.
        base_url: Url = Always(HttpUrl) or "https://thingspace.verizon.com/api";
        /// Key of the ThingSpace application.
        app_key: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// Secret of the ThingSpace application.
        app_secret: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// User name of the UWS account that the session is made for.
        uws_username: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// Password of the UWS account. Five failed log-ins lock it at ThingSpace.
        uws_password: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// HTTP method of the 5G BI plan change; Verizon's documents disagree about it.
        five_g_bi_http_method: FiveGBiHttpMethod = Always(one_of::<FiveGBiHttpMethod>()) or "POST";
        /// Plan changes that are sent a minute, at most; a call waits for its turn within its deadline,
        /// and is refused as THROTTLED otherwise. 100 is what is documented for a sibling call; with
        /// `serve --sandbox` the default is 100000.
        changes_per_minute: u32 = Always(Number { min: 1, max: 100_000 }) or "100";
        /// Questions about changes and devices that are asked a minute, at most.
        lookups_per_minute: u32 = Always(Number { min: 1, max: 100_000 }) or "60";
        /// Billing accounts whose callback listeners are looked at every five minutes. Needs
        /// `callbacks.public_url`.
        accounts: Vec<String> = Always(Many(Account)) or "";
        /// Longest time that one call to ThingSpace may take, from connecting to the last byte of its
        /// answer.
        request_timeout: Duration = Always(Span { min: 100 * MILLISECOND, max: 10 * MINUTE }) or "60s";
    }

    /// What is asked of changes.
    changes: Changes {
        /// Refuses a change without an `idempotency_key`. Without a key, a retry by a mesh or a gRPC
        /// library is a second change.
        require_key: bool = Always(Switch) or "true";
        /// Most devices that one POST to ThingSpace, and so one change, may carry.
        max_devices_per_request: u32 = Always(Number { min: 1, max: 10_000 }) or "10000";
        /// Time without further results after which a request that nobody made here is taken for a change
        /// whose answer was lost, if it has named exactly that change's devices. For eSIM, ThingSpace's own
        /// list of them is waited for as well.
        attribution_quiet_period: Duration = Always(Span { min: 0, max: DAY }) or "5s";
        /// Time after which ThingSpace is asked about the results that an accepted change still lacks; again
        /// after twice as long, and so on. After a start it is asked at once.
        reconcile_after: Duration = Always(Span { min: SECOND, max: 365 * DAY }) or "15m";
        /// Time after which an accepted change that still lacks results becomes OVERDUE.
        overdue_after: Duration = Always(Span { min: SECOND, max: 365 * DAY }) or "24h";
        /// Time after which an OVERDUE change, counted from its acceptance, or one with an unknown outcome
        /// is given up: CLOSED, with the devices that are unresolved.
        close_after: Duration = Always(Span { min: SECOND, max: 3650 * DAY }) or "7d";
    }

    /// What all callers together may have under way at a time; docs/limits.md says what that comes
    /// to in memory. What is beyond it is refused at once, and may be tried again.
    limits: Limits {
        /// Change calls, and changes under way: from before their claim until their answer is on
        /// record.
        calls: usize = Always(Number { min: 1, max: 1_000_000_usize }) or "2000";
        /// Devices of all changes under way together. At least `changes.max_devices_per_request`.
        devices: usize = Always(Number { min: 1, max: 10_000_000_usize }) or "100000";
        /// Bytes of the messages of change calls, from their first byte until they are checked. At
        /// least `grpc.max_message_bytes`. A call waits up to 5 s for room.
        message_bytes: usize = Always(Number { min: 65_536, max: 4_294_967_295_usize }) or "33554432";
        /// Calls that only read: `GetChange`, `ListChanges`, `ListDeviceResults`.
        reads: usize = Always(Number { min: 1, max: 1_000_000_usize }) or "1000";
        /// Open streams: watches, and the few of health and reflection.
        watches: usize = Always(Number { min: 1, max: 1_000_000_usize }) or "5000";
        /// Bytes of callbacks that are being received or stored.
        callback_bytes: usize = Always(Number { min: 1_048_576, max: 4_294_967_295_usize }) or "33554432";
    }

    /// Where changes and results are kept.
    journal: Journal {
        /// What keeps the journal: `embedded` is SQLite in one directory, for one replica.
        engine: JournalEngine = Always(one_of::<JournalEngine>()) or "embedded";
        /// Directory of the embedded journal; it is created when missing. With `serve --sandbox` the
        /// default is a temporary directory.
        dir: PathBuf = Always(FilePath) or "./data";
        /// Time that a change, its results and its key are kept after its last event.
        retention: Duration = Always(Span { min: MINUTE, max: 3650 * DAY }) or "400d";
        /// Allows the journal on a network file system, whose locks and syncs may not keep what they
        /// promise.
        allow_network_filesystem: bool = Always(Switch) or "false";
    }

    /// Who may call.
    auth: Auth {
        /// `none` lets in everybody who can reach the port. It must be written out when real changes
        /// can be asked for over a network: with Verizon's own base URL and a `grpc.listen` that is not
        /// loopback.
        mode: Option<AuthMode> = Maybe(one_of::<AuthMode>());
    }

    /// How the program ends.
    shutdown: Shutdown {
        /// Time that calls and deliveries under way are given after SIGTERM or SIGINT. The default is
        /// below the 30 seconds of Kubernetes.
        grace: Duration = Always(Span { min: 100 * MILLISECOND, max: HOUR }) or "25s";
    }

    /// What the program tells about itself.
    telemetry: Telemetry {
        /// How log lines, which go to standard error, look: `auto` is `text` on a terminal and `json`
        /// otherwise.
        log_format: LogFormat = Always(one_of::<LogFormat>()) or "auto";
        /// Which log lines are written, in the syntax of tracing's `EnvFilter`.
        log_filter: String = Always(LogFilter) or "info";
        /// Base URL of the OpenTelemetry collector that gets traces and metrics. Unset: what
        /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, and without it none.
        otlp_endpoint: Option<Url> = Maybe(HttpUrl);
        /// How the collector is spoken to. Unset: what `OTEL_EXPORTER_OTLP_PROTOCOL` says, and without
        /// it `http/protobuf` for port 4318 and `grpc` for any other.
        otlp_protocol: Option<OtlpProtocol> = Maybe(one_of::<OtlpProtocol>());
    }

    /// The sandbox, of `sandbox` and of `serve --sandbox`.
    sandbox: Sandbox {
        /// Address and port of the sandbox. Port 0 picks a free one.
        listen: SocketAddr = Always(Address) or "127.0.0.1:0";
        /// Seed of everything random in the sandbox: the same seed repeats a run.
        seed: u64 = Always(Number { min: 0, max: u64::MAX }) or "0";
        /// Time between the answer to a change and its first callback.
        callback_delay: Duration = Always(Span { min: 0, max: HOUR }) or "0s";
        /// Time that the sandbox takes to answer a change.
        answer_delay: Duration = Always(Span { min: 0, max: HOUR }) or "0s";
        /// Time that it takes to answer a change with a device of the scenario `slow_answer`.
        slow_answer: Duration = Always(Span { min: 0, max: HOUR }) or "5s";
        /// Time by which late callbacks are late: those of `sandbox.late_share`, and of the scenario
        /// `late`.
        late_by: Duration = Always(Span { min: 0, max: 7 * DAY }) or "10s";
        /// Time from a callback that is not the end, `warning` say, until the one that is.
        interim_for: Duration = Always(Span { min: 0, max: DAY }) or "1s";
        /// Share of the devices whose change fails, from 0 (none) to 1 (all).
        failure_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the callbacks that are sent twice, from 0 (none) to 1 (all).
        duplicate_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the callbacks that are never sent, although the change was executed.
        lost_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the callbacks that are sent `sandbox.late_by` after their time.
        late_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the callbacks that are sent before their request is answered. The answer waits for
        /// them, 10 s at most.
        early_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the callbacks that nobody can read: JSON that ends in the middle, lacks its opening
        /// brace, or has no `requestId`.
        malformed_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the changes whose connection is dropped before they are executed.
        drop_request_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the changes that are executed and whose connection is dropped before the answer.
        drop_answer_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Share of the changes that are answered with 500. The seed executes about half of them.
        error_share: f64 = Always(Number { min: 0.0, max: 1.0 }) or "0";
        /// Order in which the callbacks of one request are sent: that of its devices, the reverse, or
        /// any.
        order: CallbackOrder = Always(one_of::<CallbackOrder>()) or "as_sent";
        /// Plan that devices are on before their first change.
        initial_plan: String = Always(PlanName) or "Sandbox Initial Plan";
        /// Where results go when an account has registered no listener of its own. Unset: nowhere.
        callback_url: Option<Url> = Maybe(HttpUrl);
        /// How often and how soon a callback is sent again: `quick` three more times a second apart,
        /// `measured` once more after 1.3 s as seen on ThingSpace, `documented` three more times five
        /// minutes apart. With `quick` and `measured` a listener that does not answer within 4 s gets
        /// a second copy while the first is under way.
        resend: Resend = Always(one_of::<Resend>()) or "quick";
        /// Factor for the times of `sandbox.resend`: `0.01` makes three seconds of five minutes.
        time_scale: f64 = Always(Number { min: 0.0, max: 1000.0 }) or "1";
        /// Time from a refused callback until it is sent again. Unset: what `sandbox.resend` says.
        resend_after: Option<Duration> = Maybe(Span { min: 0, max: HOUR });
        /// Time without an answer after which a callback is sent again while the first is under way.
        /// Unset: what `sandbox.resend` says.
        patience: Option<Duration> = Maybe(Span { min: 10 * MILLISECOND, max: HOUR });
        /// Most callbacks under way at a time.
        callback_concurrency: u16 = Always(Number { min: 1, max: 1024 }) or "32";
        /// Lets listeners that are not on loopback have other ports than the ones that ThingSpace
        /// calls: 80, 443, 9001 to 9006, 50551 to 50559 and 28200 to 28220.
        any_callback_port: bool = Always(Switch) or "false";
        /// Time for which callbacks carry a listener's former user name and password after it was
        /// registered again. ThingSpace was measured at 14 minutes.
        credentials_lag: Duration = Always(Span { min: 0, max: HOUR }) or "0s";
        /// Key that token requests must have. Unset: any.
        app_key: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// Secret that token requests must have. Unset: any.
        app_secret: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// User name that log-ins must have. Unset: any.
        uws_username: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// Password that log-ins must have. Unset: any. Five wrong ones in a row lock the user until the
        /// sandbox is started anew.
        uws_password: Option<Secret> = Hidden(Rule::CREDENTIAL);
        /// Time that an access token lives, from its first issue.
        token_lifetime: Duration = Always(Span { min: SECOND, max: DAY }) or "1h";
        /// Time that a session lives without being used.
        session_lifetime: Duration = Always(Span { min: 100 * MILLISECOND, max: DAY }) or "20m";
        /// Ends a user's earlier session at each log-in. Whether ThingSpace does is not known.
        single_session: bool = Always(Switch) or "false";
        /// Most M2M calls in a minute, log-ins included; each one more is answered with 429 and
        /// `Retry-After`. 0: any number.
        requests_per_minute: u32 = Always(Number { min: 0, max: 1_000_000 }) or "0";
    }
}
