//! HTTP client of the admin socket.

use std::{error::Error, path::PathBuf, time::Duration};

use reqwest::{Client, Method};
use serde_json::Value;

use crate::cli::{exit::ExitError, settings_args::SettingsArgs};

/// Time for connecting and the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Client of the local gateway's admin socket.
pub(super) struct AdminClient {
    runtime: tokio::runtime::Runtime,
    client: Client,
    socket: PathBuf,
}

// === impl AdminClient ===

impl AdminClient {
    /// Uses the socket of the settings.
    pub(super) fn new(settings: &SettingsArgs) -> Result<Self, ExitError> {
        let socket = settings.load()?.config.admin_socket();
        let client = Client::builder()
            .unix_socket(socket.as_path())
            .timeout(RESPONSE_TIMEOUT)
            // Neither is used over a Unix socket, and loading certificates fails on a bare system.
            .no_proxy()
            .tls_certs_only([]);
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            client: client.build().map_err(ExitError::failure)?,
            socket,
        })
    }

    /// Sends a request and returns the JSON of its response.
    ///
    /// # Errors
    ///
    /// No response, or an error response; its message names the cause.
    pub(super) fn send(&self, method: Method, path: &str) -> Result<Value, ExitError> {
        let request = self.client.request(method, format!("http://admin{path}"));
        let response = self.runtime.block_on(async {
            let response = request.send().await?;
            Ok((response.status(), response.bytes().await?))
        });
        let (status, body) = response.map_err(|error| self.describe(&error))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let member = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let (error, message) = (member("error"), member("message"));
        Err(ExitError::failure(format!("{error}: {message}")))
    }

    fn describe(&self, error: &reqwest::Error) -> ExitError {
        let socket = self.socket.display();
        if error.is_timeout() {
            return ExitError::failure(format!(
                "admin.socket {socket}: no response within {RESPONSE_TIMEOUT:?}"
            ));
        }
        // reqwest's own text names the URL, which is made up.
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let hint =
            if error.is_connect() { "; is the gateway running on this machine?" } else { "" };
        ExitError::failure(format!("admin.socket {socket}: {cause}{hint}"))
    }
}
