//! Client of `OperatorService` on the gateway's Unix socket.

use std::{error::Error, future::Future, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use tower::service_fn;

use crate::{
    cli::{exit::ExitError, settings_args::SettingsArgs},
    proto::operator_service_client::OperatorServiceClient,
};

/// Time for connecting and the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size of a response in bytes: a page of quarantined callbacks is much smaller.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// The generated client.
pub(super) type Client = OperatorServiceClient<Channel>;

/// Calls the gateway on this machine.
pub(super) struct OperatorClient {
    runtime: tokio::runtime::Runtime,
    client: Client,
    socket: PathBuf,
}

impl OperatorClient {
    /// Uses the socket of the settings. Connects with the first call.
    pub(super) fn new(settings: &SettingsArgs) -> Result<Self, ExitError> {
        let socket = settings.load()?.config.admin_socket();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = socket.clone();
        let connect = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = {
            let _runtime = runtime.enter();
            // The URI is not used.
            Endpoint::from_static("http://admin.socket").connect_with_connector_lazy(connect)
        };
        let client =
            OperatorServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        Ok(Self { runtime, client, socket })
    }

    /// Makes a call and returns its response.
    ///
    /// # Errors
    ///
    /// No response, or an error; the message names the cause.
    pub(super) fn call<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T, ExitError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let call = call(self.client.clone());
        let socket = self.socket.display();
        match self.runtime.block_on(async { timeout(RESPONSE_TIMEOUT, call).await }) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.describe(&status)),
            Err(_elapsed) => Err(ExitError::failure(format!(
                "admin.socket {socket}: no response within {RESPONSE_TIMEOUT:?}"
            ))),
        }
    }

    fn describe(&self, status: &Status) -> ExitError {
        if let Some(info) = status.get_details_error_info() {
            return ExitError::failure(format!("{}: {}", info.reason, status.message()));
        }
        let socket = self.socket.display();
        let mut cause: &dyn Error = status;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let is_connect = status.code() == Code::Unavailable;
        let hint = if is_connect { "; is the gateway running on this machine?" } else { "" };
        ExitError::failure(format!("admin.socket {socket}: {cause}{hint}"))
    }
}
