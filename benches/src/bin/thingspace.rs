//! A ThingSpace that accepts every change at once and sends no callbacks.

use std::sync::atomic::{AtomicU64, Ordering};

use thingspace_bench::http;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    http::serve(listener, async |path, _body| respond(&path)).await
}

fn respond(path: &str) -> (u16, String) {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let body = if path.contains("oauth") {
        r#"{"access_token":"token","token_type":"Bearer","expires_in":3600}"#.to_owned()
    } else if path.ends_with("login") {
        r#"{"sessionToken":"session"}"#.to_owned()
    } else if path.contains("/callbacks/") {
        "[]".to_owned()
    } else if path.ends_with("list") {
        r#"{"hasMoreData":false,"devices":[]}"#.to_owned()
    } else {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        format!(r#"{{"requestId":"c0ffee00-0000-4000-8000-{number:012}"}}"#)
    };
    (200, body)
}
