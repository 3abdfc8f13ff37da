//! The conformance program. tests/python/test_conformance.py runs it.

use std::{env, error::Error, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use thingspace_gateway_client::{
    CallOptions, Client, FailedAttempt, GatewayError, Token, Watch,
    tonic::Code,
    v1::{
        Change, ChangeEsimPlanRequest, DeviceResult, EsimDevice, Executed, ListDevicesRequest,
        Retry, Until, WatchAccountRequest, WatchRequestRequest, watch_account_response,
        watch_request_response,
    },
};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Arguments =
        Arguments(serde_json::from_str(&env::args().nth(1).ok_or("one argument")?)?);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        // Dropping the future cancels the call.
        _ = interrupt.recv() => show(json!({"end": "cancelled"})),
        _ = terminate.recv() => show(json!({"end": "cancelled"})),
        result = run(&arguments) => match result.map_err(|error| error.downcast::<GatewayError>()) {
            Ok(()) => {}
            Err(Ok(error)) => show(json!({"error": describe(&error)})),
            Err(Err(error)) => return Err(error),
        },
    }
    Ok(())
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let client = connect(arguments)?;
    match arguments.text("do") {
        "change" => change(client, arguments).await,
        "watch" => watch(client, arguments).await,
        "watch_account" => watch_account(client, arguments).await,
        "list" => list(client, arguments).await,
        other => Err(format!("unknown action {other}").into()),
    }
}

fn connect(arguments: &Arguments) -> Result<Client, Box<dyn Error>> {
    let mut builder = Client::builder(arguments.text("target"));
    builder = match arguments.path("ca_file") {
        Some(file) => builder.ca(fs::read(file)?),
        None => builder.plaintext(),
    };
    if let (Some(certificate), Some(key)) =
        (arguments.path("cert_file"), arguments.path("key_file"))
    {
        builder = builder.certificate(fs::read(certificate)?, fs::read(key)?);
    }
    if let Some(file) = arguments.path("token_file") {
        let file = file.to_owned();
        builder = builder.token(Token::function(move || fs::read_to_string(&file)));
    }
    if let Some(keepalive) = arguments.duration("keepalive") {
        builder = builder.keepalive(keepalive);
    }
    let mut options = CallOptions::default();
    if let Some(timeout) = arguments.duration("attempt_timeout") {
        options = options.attempt_timeout(timeout);
    }
    if let Some(timeout) = arguments.duration("total_timeout") {
        options = options.total_timeout(timeout);
    }
    if let Some(timeout) = arguments.duration("idle_timeout") {
        options = options.idle_timeout(timeout);
    }
    let is_watch = arguments.text("do").starts_with("watch");
    Ok(builder
        .connect()?
        .with_options(options.on_retry(move |attempt| show_retry(attempt, is_watch))))
}

fn show_retry(attempt: FailedAttempt<'_>, is_watch: bool) {
    let code = code_name(attempt.error.code());
    let reason = some(attempt.error.reason_text());
    show(if is_watch {
        json!({"retry": {"code": code, "reason": reason, "resume_token": attempt.resume_token}})
    } else {
        json!({"attempt": attempt.number, "code": code, "reason": reason})
    });
}

async fn change(client: Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let first = arguments.number("first").unwrap_or(0);
    let devices = (first..first + arguments.number("devices").unwrap_or(0)).map(|n| EsimDevice {
        eid: format!("99{n:030}"),
        iccid: format!("9994{n:016}"),
        client_reference: format!("row-{n}"),
    });
    let request = ChangeEsimPlanRequest {
        account_name: arguments.text("account").into(),
        idempotency_key: arguments.text("key").into(),
        service_plan: arguments.text("plan").into(),
        validate_only: arguments.0["validate_only"] == true,
        devices: devices.collect(),
        ..Default::default()
    };
    let change = client.change_esim_plan(request).await?.change.unwrap_or_default();
    show(json!({
        "change_id": change.change_id,
        "state": state_name(&change),
        "device_count": change.device_count,
    }));
    Ok(())
}

async fn watch(client: Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    use watch_request_response::Event;
    let mut events: Watch<_> = client.watch(WatchRequestRequest {
        change_id: arguments.text("change_id").into(),
        account_name: arguments.text("account").into(),
        idempotency_key: arguments.text("key").into(),
        resume_token: arguments.text("resume_token").into(),
        until: arguments.until(),
        ..Default::default()
    });
    let mut pause = Pause::new(arguments);
    while let Some(message) = events.try_next().await? {
        let line = match &message.event {
            Some(Event::Opened(opened)) => of_change("opened", opened.change.as_ref()),
            Some(Event::DeviceResult(result)) => of_result(result),
            Some(Event::StateChanged(changed)) => {
                of_change("state_changed", changed.change.as_ref())
            }
            Some(Event::Bookmark(_)) => json!({"event": "bookmark"}),
            Some(Event::Finished(finished)) => of_change("finished", finished.change.as_ref()),
            Some(Event::Reconnect(_)) => json!({"event": "reconnect"}),
            None => json!({"event": "unknown"}),
        };
        pause.show_event(line, &message.resume_token).await;
    }
    show(json!({"end": "ok"}));
    Ok(())
}

async fn watch_account(client: Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    use watch_account_response::Event;
    let mut events = client.watch_account(WatchAccountRequest {
        account_name: arguments.text("account").into(),
        resume_token: arguments.text("resume_token").into(),
        until: arguments.until(),
        ..Default::default()
    });
    let mut pause = Pause::new(arguments);
    while let Some(message) = events.try_next().await? {
        let line = match &message.event {
            Some(Event::Opened(opened)) => of_change("opened", opened.change.as_ref()),
            Some(Event::DeviceResult(result)) => of_result(result),
            Some(Event::StateChanged(changed)) => {
                of_change("state_changed", changed.change.as_ref())
            }
            Some(Event::Bookmark(_)) => json!({"event": "bookmark"}),
            Some(Event::Reconnect(_)) => json!({"event": "reconnect"}),
            None => json!({"event": "unknown"}),
        };
        pause.show_event(line, &message.resume_token).await;
    }
    show(json!({"end": "ok"}));
    Ok(())
}

async fn list(client: Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let request = ListDevicesRequest {
        change_id: arguments.text("change_id").into(),
        page_size: arguments.number("page_size").unwrap_or(0).try_into()?,
        ..Default::default()
    };
    let devices = client.list_devices(request).try_collect().await?;
    let rows: Vec<_> = devices.into_iter().map(|device| device.client_reference).collect();
    show(json!({"rows": rows}));
    Ok(())
}

/// Prints events, and waits for a file after a number of results.
struct Pause<'a> {
    results: u64,
    at: Option<u64>,
    file: Option<&'a Path>,
}

impl<'a> Pause<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        Self { results: 0, at: arguments.number("pause_at"), file: arguments.path("pause_file") }
    }

    async fn show_event(&mut self, mut line: Value, resume_token: &str) {
        line["resume_token"] = resume_token.into();
        let is_result = line["event"] == "device_result";
        show(line);
        self.results += u64::from(is_result);
        if let (true, Some(file)) = (is_result && self.at == Some(self.results), self.file) {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn of_result(result: &DeviceResult) -> Value {
    let outcome = result.outcome().as_str_name().trim_start_matches("OUTCOME_");
    json!({
        "event": "device_result",
        "row": result.client_reference,
        "outcome": outcome,
        "change_id": result.change_id,
    })
}

fn of_change(event: &str, change: Option<&Change>) -> Value {
    let Some(change) = change else { return json!({"event": event}) };
    json!({
        "event": event,
        "change_id": change.change_id,
        "state": state_name(change),
        "succeeded": change.succeeded_count,
        "failed": change.failed_count,
    })
}

fn state_name(change: &Change) -> &'static str {
    change.state().as_str_name().trim_start_matches("CHANGE_STATE_")
}

fn describe(error: &GatewayError) -> Value {
    let violations = error.field_violations().iter();
    json!({
        "code": code_name(error.code()),
        "reason": some(error.reason_text()),
        "retry": match error.retry() {
            Retry::Unspecified => None,
            retry => Some(retry.as_str_name().trim_start_matches("RETRY_")),
        },
        "executed": match error.executed() {
            Executed::Unspecified => None,
            executed => Some(executed.as_str_name().trim_start_matches("EXECUTED_")),
        },
        "outcome_unknown": error.outcome_unknown(),
        "retry_after": error.retry_after().map(|delay| delay.as_secs_f64()),
        "field_violations": violations
            .map(|v| json!({"field": v.field, "reason": some(&v.reason), "description": v.description}))
            .collect::<Vec<_>>(),
        "message": error.message(),
    })
}

/// Returns `NOT_FOUND` for `NotFound`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Prints a line. Standard output is flushed after each line.
fn show(line: Value) {
    println!("{line}");
}

/// The JSON object that starts the program.
struct Arguments(Value);

impl Arguments {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or("")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0[name].as_u64()
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        self.0[name].as_f64().map(Duration::from_secs_f64)
    }

    fn path(&self, name: &str) -> Option<&Path> {
        self.0[name].as_str().map(Path::new)
    }

    fn until(&self) -> i32 {
        let name = format!("UNTIL_{}", self.text("until"));
        Until::from_str_name(&name).unwrap_or_default().into()
    }
}
