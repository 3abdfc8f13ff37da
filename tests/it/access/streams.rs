//! Streams end when the credential of their caller expires, and continue with a new one.

use std::time::Duration;

use thingspace_gateway::proto::{
    ReconnectReason, WatchAccountRequest, WatchAccountResponse,
    gateway_service_client::GatewayServiceClient, watch_account_response::Event,
};
use tonic::Streaming;

use super::{ACCOUNT_A, Trust, callers::Connection, callers::Credentials};
use crate::support::{
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    requests::{deliver, esim_callback, parse_error},
    tokens::now,
    wait::in_time,
};

/// A watch of the account A.
pub struct AccountWatch {
    stream: Streaming<WatchAccountResponse>,
    pub token: String,
}

impl AccountWatch {
    /// Opens a watch, and waits until it is open.
    pub async fn open(connection: &Connection, resume_token: &str) -> Self {
        let mut client = GatewayServiceClient::new(connection.clone());
        let request = WatchAccountRequest {
            account_name: ACCOUNT_A.into(),
            resume_token: resume_token.into(),
            ..Default::default()
        };
        let response = in_time(client.watch_account(request)).await.expect("an open watch");
        let mut this = Self { stream: response.into_inner(), token: String::new() };
        assert!(matches!(this.next().await, Ok(Event::Opened(_))));
        this
    }

    /// Returns the next event, or the reason of the error that ends the stream.
    pub async fn next(&mut self) -> Result<Event, String> {
        match in_time(self.stream.message()).await {
            Ok(message) => {
                let message = message.expect("the stream does not end with OK");
                self.token = message.resume_token;
                Ok(message.event.expect("an event"))
            }
            Err(status) => Err(parse_error(&status).reason),
        }
    }

    /// Reads until the stream ends because its credential no longer permits it. Returns the other events.
    pub async fn read_to_end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(Event::Reconnect(reconnect)) => {
                    assert_eq!(reconnect.reason(), ReconnectReason::CredentialExpired);
                    assert_eq!(self.next().await, Err("RECONNECT".to_owned()));
                    return events;
                }
                Ok(event) => events.push(event),
                Err(reason) => panic!("no reconnect before {reason}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token_and_continues_with_a_new_one_without_a_gap() {
    let trust = Trust::new(include_str!("../../access/policy.toml"));
    let directory = TestDir::new();
    let gateway = trust.configure(Setup::serve(UNREACHABLE_URL, &directory)).start().await;
    let url = gateway.account_callback_url(ACCOUNT_A, "DeviceProfileService");
    let callback = async |number| deliver(&url, &esim_callback("request", number)).await;

    let expiry = now() + Duration::from_secs(8);
    let short = Credentials::token(&trust.issuer.token_until("fleet", expiry));
    let short = short.connect(&gateway, &trust).await.expect("a connection");
    let mut watch = AccountWatch::open(&short, "").await;
    callback(1).await;
    assert!(matches!(watch.next().await, Ok(Event::DeviceResult(_))));
    assert_eq!(watch.read_to_end().await, []);
    callback(2).await;

    let mut client = GatewayServiceClient::new(short);
    let request = WatchAccountRequest { account_name: ACCOUNT_A.into(), ..Default::default() };
    let expired = in_time(client.watch_account(request)).await.expect_err("expired");
    assert_eq!(parse_error(&expired).summary().1, "UNAUTHENTICATED");

    let renewed = Credentials::token(&trust.issuer.token("fleet"));
    let renewed = renewed.connect(&gateway, &trust).await.expect("a connection");
    let mut resumed = AccountWatch::open(&renewed, &watch.token).await;
    let Ok(Event::DeviceResult(second)) = resumed.next().await else { panic!("a result") };
    assert_eq!(second.request_id, "request");
    callback(3).await;
    assert!(matches!(resumed.next().await, Ok(Event::DeviceResult(_))));
}
