//! The gRPC client.

use tonic::transport::{Channel, Endpoint};

use crate::proto::gateway_service_client::GatewayServiceClient;

pub(super) type Client = GatewayServiceClient<Channel>;

/// Opens a connection to `HOST:PORT`.
pub(super) async fn connect(target: &str) -> Result<Client, String> {
    let endpoint = Endpoint::from_shared(format!("http://{target}"))
        .map_err(|error| format!("{target}: {error}"))?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| format!("{target}: {error}"))?;
    Ok(GatewayServiceClient::new(channel))
}
