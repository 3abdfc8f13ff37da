//! A fake ThingSpace, its scripted responses and its recorded requests.

mod calls;
mod lookups;
mod responses;
mod server;

pub use calls::{HeldCall, RecordedRequest};
pub use lookups::{
    device_list, devices_on_plan, listed_device, pending_status, request_status,
    wait_for_device_lookups, wait_for_status_lookups,
};
pub use responses::{AuthRefusal, FakeResponse};
pub use server::{
    CallKind, DEVICE_LIST_PATH, ESIM_PLAN_PATH, FIVE_G_BI_PLAN_PATH, FakeThingSpace, LOGIN_PATH,
    REQUEST_STATUS_PREFIX, TOKEN_PATH,
};
