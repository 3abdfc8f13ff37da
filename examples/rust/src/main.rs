//! Changes the service plans of 20 eSIM profiles and prints their results. docs/clients.md
//! describes how to run it.

use std::{env, process::ExitCode, time::UNIX_EPOCH};

use thingspace_gateway_client::{
    CallOptions, Client, GatewayError,
    v1::{
        ChangeEsimPlanRequest, EsimDevice, Until, WatchRequestRequest,
        watch_request_response::Event,
    },
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), GatewayError> {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or("127.0.0.1:50051".into());
    let service_plan = arguments.next().unwrap_or("Example Plan".into());
    // A gateway in production has TLS: leave out `plaintext`.
    let client = Client::builder(target).plaintext().connect()?;
    let client = client.with_options(CallOptions::default().on_retry(|attempt| {
        eprintln!("repeating the call in {:?}: {}", attempt.delay, attempt.error);
    }));

    let request = ChangeEsimPlanRequest {
        account_name: "0000123456-00001".into(),
        // A program that can crash stores the key before the call.
        idempotency_key: format!("rust-{}", UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()),
        service_plan,
        // These identifiers are reserved for the sandbox.
        devices: (0..20)
            .map(|i| EsimDevice {
                eid: format!("99{i:030}"),
                iccid: format!("9994{i:016}"),
                client_reference: format!("row-{i}"),
            })
            .collect(),
        ..Default::default()
    };
    let change = client.change_esim_plan(request).await?.change.unwrap_or_default();
    println!("change {} is {}", change.change_id, change.state().as_str_name());

    let mut events = client.watch(WatchRequestRequest {
        change_id: change.change_id,
        until: Until::Finished.into(),
        ..Default::default()
    });
    while let Some(message) = events.try_next().await? {
        match message.event {
            Some(Event::DeviceResult(result)) => {
                println!("{} {}", result.client_reference, result.outcome().as_str_name());
            }
            Some(Event::Finished(finished)) => {
                let change = finished.change.unwrap_or_default();
                println!(
                    "{}: {} succeeded, {} failed",
                    change.state().as_str_name(),
                    change.succeeded_count,
                    change.failed_count
                );
            }
            _ => {}
        }
    }
    Ok(())
}
