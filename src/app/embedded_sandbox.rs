//! The sandbox of `serve --sandbox` and `demo`.

use std::{io, net::SocketAddr};

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use thingspace_sandbox::{
    AcceptedCredentials, CallbackOrder, FaultRates, ResendPolicy, Sandbox, Settings,
};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::config::{self, Config, Secret};

/// A sandbox with a bound port.
pub(super) struct EmbeddedSandbox {
    pub(super) sandbox: Sandbox,
    /// The directory of the journal, unless the settings name one.
    pub(super) directory: Option<TempDir>,
}

/// Converts the settings of a sandbox.
///
/// # Errors
///
/// The file of a secret cannot be read.
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
        initial_plan: config.initial_plan.to_string(),
    })
}

impl EmbeddedSandbox {
    /// Binds a sandbox and changes the settings to use it: its address, credentials that it accepts, a
    /// new path secret, and a temporary journal. A path secret, a callback URL of the sandbox and a
    /// journal directory in the settings take precedence.
    pub(super) async fn bind(config: &mut Config, callbacks: SocketAddr) -> io::Result<Self> {
        let path_secret = match &config.callbacks.path_secret {
            Some(secret) => expose(secret)?,
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
        let sandbox = Sandbox::bind(sandbox_settings(&config.sandbox)?).await?;
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

fn expose(secret: &Secret) -> io::Result<String> {
    let secret = secret.load().map_err(io::Error::other)?;
    Ok(secret.expose_secret().to_owned())
}
