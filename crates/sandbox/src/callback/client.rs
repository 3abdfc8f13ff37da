//! The HTTP client of callbacks.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect, retry};

/// Maximum duration of a callback request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn build(max_idle_connections: usize) -> reqwest::Result<Client> {
    // A system without CA certificates can still call http listeners.
    builder(max_idle_connections)
        .build()
        .or_else(|_| builder(max_idle_connections).tls_certs_only([]).build())
}

fn builder(max_idle_connections: usize) -> ClientBuilder {
    Client::builder()
        .user_agent("Verizon's callback service")
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .pool_max_idle_per_host(max_idle_connections)
        .timeout(REQUEST_TIMEOUT)
}
