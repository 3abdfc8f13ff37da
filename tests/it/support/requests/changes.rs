//! Change requests of all operations.

use thingspace_gateway::proto::{
    Change, ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, ChangeServicePlanRequest, ChangeState,
    EsimDevice, FiveGBiDevice, GetChangeRequest, Outcome, ServicePlanDevice,
};
use tonic::Status;

use super::devices::{eid, iccid, id, meid, place};
use crate::support::{gateway::Client, wait::in_time};

pub const ACCOUNT: &str = "0000123456-00001";
pub const ESIM_PLAN: &str = "service plan name";
pub const FIVE_G_BI_PLAN: &str = "Name of the plan being changed to";

/// A change request of one operation.
pub trait ChangeCall: Send + 'static {
    /// Sends the request and returns the change of the response.
    fn call(self, client: Client) -> impl Future<Output = Result<Change, Status>> + Send;
}

impl ChangeCall for ChangeEsimPlanRequest {
    async fn call(self, mut client: Client) -> Result<Change, Status> {
        let response = client.change_esim_plan(self).await?;
        Ok(response.into_inner().change.expect("a change"))
    }
}

impl ChangeCall for ChangeFiveGBiPlanRequest {
    async fn call(self, mut client: Client) -> Result<Change, Status> {
        let response = client.change_five_g_bi_plan(self).await?;
        Ok(response.into_inner().change.expect("a change"))
    }
}

impl ChangeCall for ChangeServicePlanRequest {
    async fn call(self, mut client: Client) -> Result<Change, Status> {
        let response = client.change_service_plan(self).await?;
        Ok(response.into_inner().change.expect("a change"))
    }
}

/// A change of the service plan of these profiles.
pub fn esim(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeEsimPlanRequest {
    let devices = numbers.into_iter().map(|number| EsimDevice {
        eid: eid(number),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    });
    ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: ESIM_PLAN.into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// A change of the service plan of these 5G devices.
pub fn five_g_bi(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeFiveGBiPlanRequest {
    let devices = numbers.into_iter().map(|number| FiveGBiDevice {
        device_ids: vec![id("meid", meid(number))],
        primary_place_of_use: Some(place()),
        client_reference: format!("row-{number}"),
    });
    ChangeFiveGBiPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: FIVE_G_BI_PLAN.into(),
        current_service_plan: "Name of the plan being changed from".into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// A change of the service plan of these devices, with the same identifiers as those of [`five_g_bi`].
pub fn service_plan(
    key: &str,
    numbers: impl IntoIterator<Item = usize>,
) -> ChangeServicePlanRequest {
    let devices = numbers.into_iter().map(|number| ServicePlanDevice {
        device_ids: vec![id("meid", meid(number))],
        client_reference: format!("row-{number}"),
    });
    ChangeServicePlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: FIVE_G_BI_PLAN.into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// Makes a change, which must return OK.
pub async fn make_change(client: &mut Client, request: impl ChangeCall) -> Change {
    in_time(request.call(client.clone())).await.expect("OK")
}

/// Makes a change, which must fail.
pub async fn expect_change_error(client: &mut Client, request: impl ChangeCall) -> Status {
    let result = in_time(request.call(client.clone())).await;
    result.expect_err("an error")
}

/// Returns the change with this idempotency key.
pub async fn get_by_key(client: &mut Client, key: &str) -> Result<Change, Status> {
    let request = GetChangeRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key.into(),
        ..GetChangeRequest::default()
    };
    let response = client.get_change(request).await?.into_inner();
    Ok(response.change.expect("a change"))
}

pub fn change_ids(changes: &[Change]) -> Vec<&str> {
    let ids = changes.iter().map(|change| change.change_id.as_str());
    ids.collect()
}

pub fn outcomes(outcomes: &[Outcome]) -> Vec<i32> {
    outcomes.iter().map(|outcome| (*outcome).into()).collect()
}

pub fn states(states: &[ChangeState]) -> Vec<i32> {
    states.iter().map(|state| (*state).into()).collect()
}
