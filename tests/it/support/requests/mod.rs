//! Requests of clients, callbacks of ThingSpace, and readers of their responses.

mod callbacks;
mod changes;
mod devices;
mod errors;
mod watches;

pub use callbacks::{
    callback, deliver, esim_callback, esim_failure, five_g_bi_callback, five_g_bi_success, send_all,
};
pub use changes::{
    ACCOUNT, ChangeCall, ESIM_PLAN, FIVE_G_BI_PLAN, change_ids, esim, expect_change_error,
    five_g_bi, get_by_key, make_change, outcomes, service_plan, states,
};
pub use devices::{PERSONAL, eid, iccid, id, meid, place};
pub use errors::parse_error;
pub use watches::{
    Watch, WatchCall, WatchStream, WatchTranscript, resume, resume_account, stored_iccids,
    stored_results, summarize, until_caught_up, watch_account, watch_change, watch_key,
    watch_request,
};
