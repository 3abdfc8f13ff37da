//! The sandbox of `serve --sandbox` and `demo`.

use std::{io, net::SocketAddr};

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use thingspace_sandbox::Sandbox;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::config::{Config, Secret};

/// A sandbox with a bound port.
pub(super) struct EmbeddedSandbox {
    pub(super) sandbox: Sandbox,
    /// The directory of the journal, unless the settings name one.
    pub(super) directory: Option<TempDir>,
}

impl EmbeddedSandbox {
    /// Binds a sandbox and changes the settings to use it: its address, credentials that it accepts, a
    /// new path secret, and a temporary journal. A path secret, a callback URL of the sandbox and a
    /// journal directory in the settings take precedence.
    pub(super) async fn bind(config: &mut Config, callbacks: SocketAddr) -> io::Result<Self> {
        let path_secret = match &config.callbacks.path_secret {
            Some(secret) => secret.load().map_err(io::Error::other)?.expose_secret().to_owned(),
            None => {
                let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                config.callbacks.path_secret = Some(Secret::new(secret.clone()));
                secret
            }
        };
        if config.sandbox.callback_url.is_none() {
            let url = format!("http://{callbacks}/callbacks/{{service}}/{path_secret}");
            config.sandbox.callback_url = Some(Url::parse(&url).map_err(io::Error::other)?);
        }
        let sandbox = Sandbox::bind(config.sandbox.clone()).await?;
        config.thingspace.base_url = sandbox.base_url();
        let credential = |accepted: &Option<Secret>| {
            Some(accepted.clone().unwrap_or_else(|| Secret::new("sandbox")))
        };
        config.thingspace.app_key = credential(&config.sandbox.app_key);
        config.thingspace.app_secret = credential(&config.sandbox.app_secret);
        config.thingspace.uws_username = credential(&config.sandbox.uws_username);
        config.thingspace.uws_password = credential(&config.sandbox.uws_password);

        let directory = if config.is_set("journal.dir") {
            None
        } else {
            let directory = tempfile::Builder::new().prefix("thingspace-gateway-").tempdir()?;
            config.journal.dir = directory.path().to_owned();
            Some(directory)
        };
        Ok(Self { sandbox, directory })
    }
}

/// Serves until `stop`.
pub(super) async fn run(sandbox: Sandbox, stop: CancellationToken) {
    tracing::info!(address = %sandbox.local_addr(), "the sandbox is at {}", sandbox.base_url());
    if let Err(error) = sandbox.run(stop.cancelled_owned()).await {
        tracing::error!(%error, "sandbox failed");
    }
}
