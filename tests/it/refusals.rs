//! Each refusal of ThingSpace has the same meaning for all operations, as documented in
//! docs/thingspace-refusals.md.

use std::{fs, path::Path};

use thingspace_gateway::proto::ChangeState;
use tonic::{Code, Status};

use crate::support::{
    env::TestEnv,
    gateway::{Client, Setup},
    requests::{esim, five_g_bi, parse_error, service_plan},
    thingspace::{CallKind, FakeResponse},
};

/// A row of the document: a response of ThingSpace, and the result of the change call.
#[derive(Debug)]
struct Row {
    response: String,
    returns: [String; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Esim,
    FiveGBi,
    ServicePlan,
}

const OPERATIONS: [Operation; 3] = [Operation::Esim, Operation::FiveGBi, Operation::ServicePlan];

/// Reads the rows of the tables below a heading.
fn load_cases(heading: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/thingspace-refusals.md");
    let text = fs::read_to_string(path).expect("the document");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().expect("a section");
    let lines = section.lines().filter(|line| line.starts_with("| "));
    lines
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [response, code, reason, retry, executed] = cells[..] else {
                panic!("not five cells: {line}");
            };
            Row {
                response: response.to_owned(),
                returns: [code, reason, retry, executed].map(str::to_owned),
            }
        })
        .collect()
}

fn service(status: u16, code: &str, message: &str) -> FakeResponse {
    let body = serde_json::json!({ "errorCode": code, "errorMessage": message });
    custom_response(status, &body.to_string())
}

/// A response without a delay before the next request.
fn custom_response(status: u16, body: &str) -> FakeResponse {
    FakeResponse::custom(status, &[("retry-after", "0")], body)
}

fn fault(status: u16, code: u32) -> FakeResponse {
    let fault = serde_json::json!({ "code": code.to_string(), "message": "M", "description": "D" });
    custom_response(status, &serde_json::json!({ "fault": fault }).to_string())
}

/// The formats of an error code: in `errorCode`, and by the eSIM API in the message.
fn error_code_responses(code: &str) -> Vec<FakeResponse> {
    let code = match code.trim_matches('`') {
        "another `INPUT_INVALID` code" => "INPUT_INVALID.SomethingNew".to_owned(),
        "another `REQUEST_FAILED` code" => "REQUEST_FAILED.SomethingNew".to_owned(),
        code => code.replace("<service plan>", "service plan name"),
    };
    let full = match code.as_str() {
        "DeserializationFailed" => code.clone(),
        code => format!("UnifiedWebService.{code}"),
    };
    vec![
        service(400, &full, "some text"),
        service(400, &code, "some text"),
        service(400, "400", &format!("{full}: some text")),
        service(400, "400", &format!("{full}. Some text.")),
        service(400, "400", &full),
        service(400, "401", &format!("{full}: some text")),
        service(401, &full, "some text"),
        service(401, "401", &format!("{full}: some text")),
    ]
}

/// The responses of the other rows of the document.
fn other_responses(row: &str) -> Vec<FakeResponse> {
    const HTML: &str = "<html><body>No</body></html>";
    const OAUTH: &str = r#"{"error":"invalid_request","error_description":"D"}"#;
    const XML: &str = "<am:fault xmlns:am=\"http://wso2.org/apimanager\"><am:code>404</am:code>\
        <am:message>M</am:message><am:description>D</am:description></am:fault>";
    match row {
        "`errorCode` 400 without a code in the message" => vec![
            service(400, "400", "Bad request"),
            service(400, "400", "REQUEST_FAILED. The device is not there."),
        ],
        "`errorCode` 401 without a code in the message" => {
            vec![service(401, "401", "Unauthorized"), service(400, "401", "Unauthorized")]
        }
        "`errorCode` 403 without a code in the message" => {
            vec![service(403, "403", "Forbidden"), service(400, "403", "Forbidden")]
        }
        "`errorCode` 404 without a code in the message" => {
            vec![service(404, "404", "Not found"), service(400, "404", "Not found")]
        }
        "`errorCode` 408" => vec![
            service(400, "408", "Time-out"),
            service(400, "408", "UnifiedWebService.REQUEST_FAILED.DeviceNotFound: D"),
        ],
        "`errorCode` 429" => vec![service(429, "429", "Slow"), service(400, "429", "Slow")],
        "`errorCode` 500" => vec![
            service(500, "500", "Error"),
            service(400, "500", "UnifiedWebService.REQUEST_FAILED.DeviceNotFound: D"),
            service(400, "500", "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"),
        ],
        "fault 900901" => vec![fault(401, 900_901)],
        "fault 900902" => vec![fault(401, 900_902)],
        "fault 900906" => vec![fault(400, 900_906), fault(404, 900_906), fault(405, 900_906)],
        "fault 900800 to 900807, with any status" => {
            (900_800..=900_807).flat_map(|code| [fault(429, code), fault(503, code)]).collect()
        }
        "403 with an XML fault" => vec![custom_response(403, XML)],
        "`{\"error\", \"error_description\"}` with 400" => vec![custom_response(400, OAUTH)],
        "`{\"error\", \"error_description\"}` with 401" => vec![custom_response(401, OAUTH)],
        "401 without a body" => vec![custom_response(401, "")],
        "403 without a body" => vec![custom_response(403, "")],
        "429, whatever the body" => vec![custom_response(429, ""), custom_response(429, HTML)],
        "400, 401, 403 or 404 with HTML" => {
            [400, 401, 403, 404].map(|status| custom_response(status, HTML)).into()
        }
        "408" => vec![custom_response(408, ""), custom_response(408, HTML)],
        "5xx, except the faults above" => vec![
            custom_response(500, ""),
            custom_response(502, HTML),
            custom_response(504, ""),
            service(500, "UnifiedWebService.REQUEST_FAILED.DeviceNotFound", "D"),
        ],
        "a redirect" => vec![FakeResponse::custom(307, &[("location", "/")], "")],
        "2xx without a request id" => {
            vec![custom_response(200, "{}"), custom_response(200, HTML), custom_response(202, "")]
        }
        "the connection ends before the response" => vec![FakeResponse::HangUp],
        row => panic!("no test for the row {row:?}"),
    }
}

/// Makes a change of one device.
async fn change(
    client: &mut Client,
    operation: Operation,
    number: usize,
) -> Result<ChangeState, Status> {
    let key = format!("{operation:?}-{number}");
    let change = match operation {
        Operation::Esim => {
            let request = esim(&key, [number]);
            client.change_esim_plan(request).await?.into_inner().change
        }
        Operation::FiveGBi => {
            let request = five_g_bi(&key, [number]);
            client.change_five_g_bi_plan(request).await?.into_inner().change
        }
        Operation::ServicePlan => {
            // Other devices: after an unclear response to the 5G change, its devices are busy.
            let request = service_plan(&key, [100_000 + number]);
            client.change_service_plan(request).await?.into_inner().change
        }
    };
    Ok(change.expect("a change").state())
}

/// The result of a change call in the format of the document.
fn written(returned: Result<ChangeState, Status>) -> [String; 4] {
    match returned {
        Ok(state) => {
            let state = state.as_str_name().trim_start_matches("CHANGE_STATE_");
            [format!("OK: {state}"), String::new(), String::new(), String::new()]
        }
        Err(status) => {
            let error = parse_error(&status);
            let (code, reason, retry, executed) = error.summary();
            let code = match code {
                Code::InvalidArgument => "INVALID_ARGUMENT",
                Code::NotFound => "NOT_FOUND",
                Code::PermissionDenied => "PERMISSION_DENIED",
                Code::FailedPrecondition => "FAILED_PRECONDITION",
                Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
                Code::Unavailable => "UNAVAILABLE",
                code => panic!("no row has {code:?}"),
            };
            [code, reason, retry, executed.unwrap_or_default()].map(str::to_owned)
        }
    }
}

#[tokio::test]
async fn every_thingspace_refusal_is_mapped_as_documented_for_all_operations() {
    let mut env = TestEnv::start().await;
    let mut cases = Vec::new();
    for row in load_cases("Error codes") {
        cases.extend(
            error_code_responses(&row.response)
                .into_iter()
                .map(|response| (row.returns.clone(), response)),
        );
    }
    for row in load_cases("Other responses") {
        if row.response == "no connection" {
            continue;
        }
        let responses = other_responses(&row.response).into_iter();
        cases.extend(responses.map(|response| (row.returns.clone(), response)));
    }
    let mut wrong = Vec::new();
    for (number, (expected, response)) in cases.into_iter().enumerate() {
        env.thingspace.respond_always(CallKind::Change, response.clone());
        for operation in OPERATIONS {
            let returned = written(change(&mut env.client, operation, number).await);
            if returned != expected {
                wrong.push(format!("{operation:?} {response:?}: {returned:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_sandbox_refuses_all_operations_with_the_documented_codes() {
    let gateway = Setup::sandbox().start().await;
    let mut client = gateway.client().await;
    let rows = load_cases("Error codes");
    for (scenario, code) in [
        ("73", "`REQUEST_FAILED.PlanChangeLimitExceeded`"),
        ("74", "`REQUEST_FAILED.DeviceNotFound`"),
    ] {
        let row = rows.iter().find(|row| row.response == code).expect(code);
        let mut esim = esim(scenario, [1]);
        esim.devices[0].iccid = format!("99949{scenario}0000000000001");
        let mut five_g_bi = five_g_bi(scenario, [1]);
        five_g_bi.idempotency_key = format!("5g-{scenario}");
        five_g_bi.devices[0].device_ids[0].id = format!("FF00000F{scenario}0001");
        let mut service_plan = service_plan(scenario, [1]);
        service_plan.idempotency_key = format!("plan-{scenario}");
        service_plan.devices[0].device_ids[0].id = format!("FF00000F{scenario}0002");
        let responses = [
            client.change_esim_plan(esim).await.map(drop),
            client.change_five_g_bi_plan(five_g_bi).await.map(drop),
            client.change_service_plan(service_plan).await.map(drop),
        ];
        for response in responses {
            let refused = response.expect_err("a refusal");
            let code_text = &parse_error(&refused).metadata["thingspace_code"];
            assert!(code_text.ends_with(code.trim_matches('`')), "{code_text}");
            assert_eq!(written(Err(refused)), row.returns, "{code}");
        }
    }
}

#[tokio::test]
async fn a_change_without_a_connection_is_not_sent_as_documented() {
    let mut env = TestEnv::start().await;
    // The first change logs in, so that the second one finds no connection.
    change(&mut env.client, Operation::Esim, 0).await.expect("OK");
    let _down = env.thingspace.stop().await;
    let row = load_cases("Other responses").pop().expect("a row");
    assert_eq!(row.response, "no connection");
    for operation in OPERATIONS {
        let returned = change(&mut env.client, operation, 1).await;
        assert_eq!(written(returned), row.returns, "{operation:?}");
    }
}
