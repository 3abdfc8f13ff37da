//! The sandbox of `serve --sandbox` and `demo`, which runs in the gateway's process.

use std::{io, net::SocketAddr};

use tempfile::TempDir;
use thingspace_sandbox::{
    AcceptedCredentials, CallbackOrder, FaultRates, ResendPolicy, Sandbox, Settings,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::config::{self, Config, Secret};

/// A bound sandbox and the temporary journal directory.
pub(super) struct EmbeddedSandbox {
    sandbox: Sandbox,
    base_url: Url,
    directory: Option<TempDir>,
}

/// A running sandbox and the temporary journal directory.
pub(super) struct RunningSandbox {
    task: JoinHandle<()>,
    directory: Option<TempDir>,
}

/// Returns the settings of a sandbox.
///
/// # Errors
///
/// Fails if the file of a secret cannot be read.
pub fn sandbox_settings(config: &config::SandboxConfig) -> io::Result<Settings> {
    Ok(Settings {
        listen: config.listen,
        seed: config.seed,
        callback_delay: config.callback_delay,
        response_delay: config.answer_delay,
        slow_response_delay: config.slow_answer,
        late_delay: config.late_delay,
        interim_delay: config.interim_for,
        resend: match config.resend {
            config::ResendPolicy::Quick => ResendPolicy::Quick,
            config::ResendPolicy::Measured => ResendPolicy::Measured,
            config::ResendPolicy::Documented => ResendPolicy::Documented,
        },
        time_scale: config.time_scale,
        resend_delay: config.resend_after,
        callback_timeout: config.callback_timeout,
        fault_rates: FaultRates {
            failure: config.failure_rate,
            duplicate: config.duplicate_rate,
            lost: config.lost_rate,
            early: config.early_rate,
            late: config.late_rate,
            malformed: config.malformed_rate,
            drop_request: config.drop_request_rate,
            drop_response: config.drop_answer_rate,
            error: config.error_rate,
        },
        callback_order: match config.order {
            config::CallbackOrder::AsSent => CallbackOrder::AsSent,
            config::CallbackOrder::Reversed => CallbackOrder::Reversed,
            config::CallbackOrder::Shuffled => CallbackOrder::Shuffled,
        },
        callback_url: config.callback_url.clone(),
        callback_credentials: None,
        callback_concurrency: usize::from(config.callback_concurrency),
        any_callback_port: config.any_callback_port,
        credentials_lag: config.credentials_lag,
        credentials: AcceptedCredentials {
            app_key: config.app_key.as_ref().map(expose).transpose()?,
            app_secret: config.app_secret.as_ref().map(expose).transpose()?,
            uws_username: config.uws_username.as_ref().map(expose).transpose()?,
            uws_password: config.uws_password.as_ref().map(expose).transpose()?,
        },
        token_lifetime: config.token_lifetime,
        session_lifetime: config.session_lifetime,
        single_session: config.single_session,
        requests_per_minute: config.requests_per_minute,
        initial_plan: config.initial_plan.clone(),
    })
}

// === impl EmbeddedSandbox ===

impl EmbeddedSandbox {
    /// Binds a sandbox and changes the gateway's settings to use it: base URL, credentials, path secret,
    /// and a temporary journal directory unless `journal.dir` is set.
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
        let sandbox = Sandbox::bind(sandbox_settings(&config.sandbox)?).await?;
        let base_url = sandbox.base_url();
        config.thingspace.base_url = base_url.clone();
        // Without an expected value the sandbox accepts any.
        let credential = |expected: &Option<Secret>| {
            Some(expected.clone().unwrap_or_else(|| Secret::new("sandbox")))
        };
        config.thingspace.app_key = credential(&config.sandbox.app_key);
        config.thingspace.app_secret = credential(&config.sandbox.app_secret);
        config.thingspace.uws_username = credential(&config.sandbox.uws_username);
        config.thingspace.uws_password = credential(&config.sandbox.uws_password);

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

    pub(super) fn start(self, stop: CancellationToken) -> RunningSandbox {
        let sandbox = self.sandbox;
        let task = tokio::spawn(async move {
            if let Err(error) = sandbox.run(stop.cancelled_owned()).await {
                tracing::error!(%error, "sandbox failed");
            }
        });
        RunningSandbox {
            task,
            directory: self.directory,
        }
    }
}

// === impl RunningSandbox ===

impl RunningSandbox {
    pub(super) async fn stop(self) {
        self.task.abort();
        let _aborted = self.task.await;
        drop(self.directory);
    }
}

fn expose(secret: &Secret) -> io::Result<String> {
    use secrecy::ExposeSecret;
    let secret = secret.load().map_err(io::Error::other)?;
    Ok(secret.expose_secret().to_owned())
}
