//! The calls of matrix.txt.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::{StreamExt as _, stream};
use thingspace_gateway::{
    grpc::health_v1::{HealthCheckRequest, health_client::HealthClient},
    proto::{
        ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, GetChangeRequest, GetServerInfoRequest,
        GetStatusRequest, ListChangesRequest, ListDeviceResultsRequest, ListDevicesRequest,
        ListServicePlansRequest, PauseChangesRequest, ResumeChangesRequest, Until,
        WatchAccountRequest, WatchRequestRequest, gateway_service_client::GatewayServiceClient,
        operator_service_client::OperatorServiceClient,
    },
};
use tonic::{Code, Response, Status, Streaming};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use super::{ACCOUNT_A, ACCOUNT_B, callers::Connection};
use crate::support::{
    requests::{esim, five_g_bi, parse_error},
    wait::in_time,
};

/// The changes that the calls refer to.
pub struct World {
    /// Changes of the accounts A and B.
    pub change_a: String,
    pub change_b: String,
}

/// The keys of these changes.
pub const KEY: &str = "existing";
/// A request that was made elsewhere and names the account A, and one that names no account.
pub const MADE_ELSEWHERE: &str = "made-elsewhere";
pub const WITHOUT_ACCOUNT: &str = "without-account";
/// The device of the next change. No two changes have one in common.
static NEXT_DEVICE: AtomicUsize = AtomicUsize::new(1_000);

/// Makes a call of the table. Returns its result in the words of the table.
pub async fn make(call: &str, connection: &Connection, world: &World) -> String {
    match in_time(try_make(call, connection, world)).await {
        Ok(()) => "ok".to_owned(),
        Err(status) => {
            let error = parse_error(&status);
            match (error.code, error.reason.as_str()) {
                (Code::Unauthenticated, "UNAUTHENTICATED") => "unauth".to_owned(),
                (Code::PermissionDenied, "PERMISSION_DENIED") => "denied".to_owned(),
                (Code::NotFound, "CHANGE_NOT_FOUND") => "hidden".to_owned(),
                // Permitted: the fake ThingSpace knows no plans.
                _ if call.starts_with("plans") && error.reason.starts_with("THINGSPACE") => {
                    "ok".to_owned()
                }
                _ => format!("{status:?}"),
            }
        }
    }
}

async fn try_make(call: &str, connection: &Connection, world: &World) -> Result<(), Status> {
    let mut gateway = GatewayServiceClient::new(connection.clone());
    let mut operator = OperatorServiceClient::new(connection.clone());
    let (verb, object) = call.rsplit_once('-').unwrap_or((call, ""));
    let account = match object {
        "A" => ACCOUNT_A.to_owned(),
        "B" => ACCOUNT_B.to_owned(),
        _ => String::new(),
    };
    let change_id = match object {
        "A" => world.change_a.clone(),
        "B" => world.change_b.clone(),
        _ => "01890000-0000-7000-8000-000000000000".to_owned(),
    };
    match verb {
        "health" => {
            let health = HealthClient::new(connection.clone());
            done({ health }.check(HealthCheckRequest::default()).await)
        }
        "info" => done(gateway.get_server_info(GetServerInfoRequest {}).await),
        "refl" => reflect(connection).await,
        "esim" => done(gateway.change_esim_plan(change_esim(account)).await),
        "5g" => done(gateway.change_five_g_bi_plan(change_five_g_bi(account)).await),
        "watch" if object == "made" => watch(&mut gateway, by_request(MADE_ELSEWHERE)).await,
        "watch" if object == "none" => watch(&mut gateway, by_request(WITHOUT_ACCOUNT)).await,
        "watch" => {
            let until = Until::CaughtUp.into();
            let request =
                WatchAccountRequest { account_name: account, until, ..Default::default() };
            read(gateway.watch_account(request).await?).await
        }
        "watch-id" => {
            watch(&mut gateway, WatchRequestRequest { change_id, ..until_caught_up() }).await
        }
        "get" => {
            let request = GetChangeRequest { change_id, ..Default::default() };
            done(gateway.get_change(request).await)
        }
        "key" => {
            let idempotency_key = KEY.to_owned();
            let request =
                GetChangeRequest { account_name: account, idempotency_key, ..Default::default() };
            done(gateway.get_change(request).await)
        }
        "devices" => {
            let request = ListDevicesRequest { change_id, ..Default::default() };
            done(gateway.list_devices(request).await)
        }
        "results" => {
            results(&mut gateway, ListDeviceResultsRequest { change_id, ..Default::default() })
                .await
        }
        "made" => results(&mut gateway, results_of_request(MADE_ELSEWHERE)).await,
        "none" => results(&mut gateway, results_of_request(WITHOUT_ACCOUNT)).await,
        "list" => {
            let request = ListChangesRequest { account_name: account, ..Default::default() };
            done(gateway.list_changes(request).await)
        }
        "plans" => done(
            gateway.list_service_plans(ListServicePlansRequest { account_name: account }).await,
        ),
        "pause" => {
            let account_name = account.clone();
            let request = PauseChangesRequest { account_name, ..Default::default() };
            operator.pause_changes(request).await?;
            done(operator.resume_changes(ResumeChangesRequest { account_name: account }).await)
        }
        "status" => done(operator.get_status(GetStatusRequest {}).await),
        verb => panic!("no such call: {verb}"),
    }
}

fn done<T>(response: Result<Response<T>, Status>) -> Result<(), Status> {
    response.map(|_| ())
}

async fn watch(
    gateway: &mut GatewayServiceClient<Connection>,
    request: WatchRequestRequest,
) -> Result<(), Status> {
    read(gateway.watch_request(request).await?).await
}

/// Reads a stream to its end.
async fn read<T>(response: Response<Streaming<T>>) -> Result<(), Status> {
    let mut stream = response.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

async fn results(
    gateway: &mut GatewayServiceClient<Connection>,
    request: ListDeviceResultsRequest,
) -> Result<(), Status> {
    let listed = gateway.list_device_results(request).await?.into_inner();
    assert_eq!(listed.device_results.len(), 1, "each has one result");
    Ok(())
}

async fn reflect(connection: &Connection) -> Result<(), Status> {
    let mut client = ServerReflectionClient::new(connection.clone());
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { message_request, ..Default::default() };
    let responses = client.server_reflection_info(stream::iter([request])).await?;
    responses.into_inner().next().await.expect("a response").map(|_| ())
}

fn until_caught_up() -> WatchRequestRequest {
    WatchRequestRequest { until: Until::CaughtUp.into(), ..Default::default() }
}

fn by_request(request_id: &str) -> WatchRequestRequest {
    WatchRequestRequest { request_id: request_id.to_owned(), ..until_caught_up() }
}

fn results_of_request(request_id: &str) -> ListDeviceResultsRequest {
    ListDeviceResultsRequest { request_id: request_id.to_owned(), ..Default::default() }
}

/// A change of a device of its own.
pub fn change_esim(account_name: String) -> ChangeEsimPlanRequest {
    let device = NEXT_DEVICE.fetch_add(1, Relaxed);
    ChangeEsimPlanRequest { account_name, ..esim(&format!("key-{device}"), [device]) }
}

fn change_five_g_bi(account_name: String) -> ChangeFiveGBiPlanRequest {
    let device = NEXT_DEVICE.fetch_add(1, Relaxed);
    ChangeFiveGBiPlanRequest { account_name, ..five_g_bi(&format!("key-{device}"), [device]) }
}
