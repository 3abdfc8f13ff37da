//! Devices, and the messages about them. A device is a number.

use crate::proto;

/// The account of all changes.
pub const ACCOUNT: &str = "0000123456-00001";

/// Returns the ICCID of a device.
pub fn iccid(number: u64) -> String {
    format!("8914800{number:013}")
}

/// Returns the EID of a device. Numbers that differ by a multiple of 100,000,000 are profiles of the same eSIM.
pub fn eid(number: u64) -> String {
    format!("8904{:028}", number % 100_000_000)
}

/// Service plan of a change whose response the ThingSpace of this benchmark loses.
pub const LOST_PLAN: &str = "Lost Plan";

/// Returns a change of eSIM profiles.
pub fn esim_change(
    key: String,
    plan: &str,
    first: u64,
    devices: u64,
) -> proto::ChangeEsimPlanRequest {
    let devices = (first..first + devices).map(|number| proto::EsimDevice {
        eid: eid(number),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    });
    proto::ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key,
        service_plan: plan.into(),
        devices: devices.collect(),
        ..Default::default()
    }
}

/// The credentials of a callback's sender.
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// Returns the body of the successful callback of an eSIM profile, in the form of ThingSpace's example.
pub fn callback(request_id: &str, number: u64, credentials: Option<&Credentials>) -> String {
    let credentials = credentials.map_or_else(String::new, |Credentials { username, password }| {
        format!(r#""username":"{username}","password":"{password}","#)
    });
    let ids = format!(
        r#"[{{"id":"{}","kind":"Eid"}},{{"id":"99000000{number:07}","kind":"Imei"}},{{"id":"1512{number:07}","kind":"msisdn"}},{{"id":"{}","kind":"Iccid"}}]"#,
        eid(number),
        iccid(number)
    );
    format!(
        r#"{{{credentials}"requestId":"{request_id}","deviceIds":{ids},"deviceResponse":{{"deviceProfileResponse":{{"deviceIdentifierCollection":{ids},"state":"ACTIVE","profileStatus":"ENABLE","profileRole":"LOCAL"}}}},"status":"SUCCESS","callbackCount":1,"maxCallbackThreshold":4}}"#
    )
}

/// Returns the number of the device of an ICCID that [`iccid`] returned.
pub fn number(iccid: &str) -> Option<u64> {
    iccid.strip_prefix("8914800")?.parse().ok()
}
