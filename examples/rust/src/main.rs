//! Changes the service plans of 20 eSIM profiles and prints the state of the
//! change, or why it was refused. docs/clients.md describes how to run it.

use std::{
    env,
    error::Error,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use gateway::{
    ChangeEsimPlanRequest, EsimDevice, Reason, gateway_service_client::GatewayServiceClient,
};
use tonic::{Request, Status};
use tonic_types::StatusExt;

#[allow(missing_docs)]
mod gateway {
    include!("../gen/thingspace/gateway/v1/thingspace.gateway.v1.rs");
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or("127.0.0.1:50051".into());
    let plan = arguments.next().unwrap_or("Example Plan".into());
    let mut client = GatewayServiceClient::connect(format!("http://{target}")).await?;

    let mut request = Request::new(ChangeEsimPlanRequest {
        account_name: "0000123456-00001".into(),
        idempotency_key: format!("rust-{}", UNIX_EPOCH.elapsed()?.as_nanos()),
        service_plan: plan,
        // These identifiers are reserved for the sandbox.
        devices: (0..20)
            .map(|i| EsimDevice {
                eid: format!("99{i:030}"),
                iccid: format!("9994{i:016}"),
                client_reference: format!("row-{i}"),
            })
            .collect(),
        ..Default::default()
    });
    // The deadline is longer than the gateway waits for ThingSpace.
    request.set_timeout(Duration::from_secs(90));
    match client.change_esim_plan(request).await {
        Ok(response) => {
            let change = response.into_inner().change.unwrap_or_default();
            println!(
                "change {} is {}",
                change.change_id,
                change.state().as_str_name()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(status) => {
            describe(&status);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints the details of an error. An error without an ErrorInfo does not come
/// from the gateway, but from a proxy or from the gRPC library.
fn describe(status: &Status) {
    eprintln!("{:?}: {}", status.code(), status.message());
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    match Reason::from_str_name(&format!("REASON_{reason}")).unwrap_or_default() {
        Reason::FieldInvalid => {
            for field in details
                .bad_request()
                .iter()
                .flat_map(|bad| &bad.field_violations)
            {
                eprintln!("invalid field {}: {}", field.field, field.description);
            }
        }
        // Also a reason that a later version of the gateway added.
        _ => eprintln!("reason: {reason}"),
    }
}
