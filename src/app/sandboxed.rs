//! A gateway with a sandbox beside it: `serve --sandbox` and `demo`.

use std::{io, net::SocketAddr};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    config::{self, Config, Secret},
    sandbox::{CallbackOrder, Sandbox, Settings},
};

/// A sandbox that is bound, and what goes away with it.
pub(super) struct Beside {
    sandbox: Sandbox,
    base_url: Url,
    directory: Option<TempDir>,
}

/// A sandbox that runs.
pub(super) struct Running {
    task: JoinHandle<()>,
    directory: Option<TempDir>,
}

/// What the settings say of a sandbox.
pub fn sandbox_settings(config: &config::Sandbox) -> Settings {
    Settings {
        listen: config.listen,
        seed: config.seed,
        callback_delay: config.callback_delay,
        answer_delay: config.answer_delay,
        resend_after: config.resend_after,
        patience: config.patience,
        failure_share: config.failure_share,
        duplicate_share: config.duplicate_share,
        order: match config.order {
            config::CallbackOrder::AsSent => CallbackOrder::AsSent,
            config::CallbackOrder::Reversed => CallbackOrder::Reversed,
            config::CallbackOrder::Shuffled => CallbackOrder::Shuffled,
        },
        callback_url: config.callback_url.clone(),
        callback_login: None,
        callback_concurrency: usize::from(config.callback_concurrency),
        credentials: None,
    }
}

// === impl Beside ===

impl Beside {
    /// Binds a sandbox and points the settings at it: its address, credentials
    /// that only it takes, a new path secret, and a temporary journal unless
    /// one is set.
    pub(super) async fn bind(config: &mut Config, callbacks: SocketAddr) -> io::Result<Self> {
        let secret = match &config.callbacks.path_secret {
            Some(_) => None,
            None => Some(format!(
                "{}{}",
                Uuid::new_v4().simple(),
                Uuid::new_v4().simple()
            )),
        };
        if config.sandbox.callback_url.is_none() {
            let secret = match (&secret, &config.callbacks.path_secret) {
                (Some(secret), _) => secret.clone(),
                (None, Some(set)) => expose(set)?,
                (None, None) => String::new(),
            };
            let url = format!("http://{callbacks}/callbacks/{{service}}/{secret}");
            config.sandbox.callback_url = Some(Url::parse(&url).map_err(io::Error::other)?);
        }
        if let Some(secret) = secret {
            config.callbacks.path_secret = Some(Secret::new(secret));
        }
        let sandbox = Sandbox::bind(sandbox_settings(&config.sandbox)).await?;
        let base_url = sandbox.base_url();
        config.thingspace.base_url = base_url.clone();
        let credential = || Some(Secret::new("sandbox"));
        config.thingspace.app_key = credential();
        config.thingspace.app_secret = credential();
        config.thingspace.uws_username = credential();
        config.thingspace.uws_password = credential();

        let directory = if config.is_set("journal.dir") {
            None
        } else {
            let directory = tempfile::Builder::new()
                .prefix("thingspace-gateway-")
                .tempdir()?;
            config.journal.dir = directory.path().to_owned();
            Some(directory)
        };
        Ok(Self {
            sandbox,
            base_url,
            directory,
        })
    }

    pub(super) fn log(&self) {
        tracing::info!(address = %self.sandbox.local_addr(), "the sandbox is at {}", self.base_url);
    }

    pub(super) fn start(self, stop: CancellationToken) -> Running {
        let sandbox = self.sandbox;
        let task = tokio::spawn(async move {
            if let Err(error) = sandbox.run(stop.cancelled_owned()).await {
                tracing::error!(%error, "the sandbox failed");
            }
        });
        Running {
            task,
            directory: self.directory,
        }
    }
}

// === impl Running ===

impl Running {
    pub(super) async fn end(self) {
        self.task.abort();
        let _aborted = self.task.await;
        drop(self.directory);
    }
}

fn expose(secret: &Secret) -> io::Result<String> {
    use secrecy::ExposeSecret;
    let secret = secret.read().map_err(io::Error::other)?;
    Ok(secret.expose_secret().to_owned())
}
