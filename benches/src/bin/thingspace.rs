//! A ThingSpace that accepts every change at once and sends no callbacks. It loses the response to a change
//! with the service plan [`LOST_PLAN`].

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use thingspace_bench::{devices::LOST_PLAN, http};
use tokio::net::TcpListener;

/// The number of the next request ID.
static NEXT_REQUEST: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    // Another process returns other request IDs.
    NEXT_REQUEST.store(u64::from(std::process::id()) % 1_000_000 * 1_000_000, Ordering::Relaxed);
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    http::serve(listener, async |path, body| respond(&path, &body)).await
}

fn respond(path: &str, body: &Bytes) -> Option<(u16, String)> {
    let body = if path.contains("oauth") {
        r#"{"access_token":"token","token_type":"Bearer","expires_in":3600}"#.to_owned()
    } else if path.ends_with("login") {
        r#"{"sessionToken":"session"}"#.to_owned()
    } else if path.contains("/callbacks/") {
        "[]".to_owned()
    } else if path.ends_with("list") {
        r#"{"hasMoreData":false,"devices":[]}"#.to_owned()
    } else if has_lost_plan(body) {
        return None;
    } else {
        let number = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
        format!(r#"{{"requestId":"c0ffee00-0000-4000-8000-{number:012}"}}"#)
    };
    Some((200, body))
}

/// Looks only at the ends of the body: the plan is before or after the devices.
fn has_lost_plan(body: &[u8]) -> bool {
    let plan = LOST_PLAN.as_bytes();
    let ends = [&body[..body.len().min(256)], &body[body.len().saturating_sub(256)..]];
    ends.iter().any(|end| end.windows(plan.len()).any(|window| window == plan))
}
