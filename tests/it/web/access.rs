//! Identity and policy apply to every protocol.

use std::{net::Ipv4Addr, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, Version};
use serde_json::{Value, json};

use super::{Lines, answer, event, reason, send};
use crate::{
    access::{ACCOUNT_A, ACCOUNT_B, Trust},
    support::{
        authority::{ClientName, Issued},
        gateway::{Gateway, Setup, TestDir, UNREACHABLE_URL},
        requests::{deliver, esim_callback},
        tokens::now,
        wait::in_time,
    },
};

const POLICY: &str = include_str!("../../access/policy.toml");
const READER: ClientName = ClientName::Dns("reader.test.example");

/// A gateway with TLS, identities and the policy of the matrix.
struct Secured {
    trust: Trust,
    gateway: Gateway,
}

impl Secured {
    async fn start() -> Self {
        let (trust, directory) = (Trust::new(POLICY), TestDir::new());
        let gateway = trust.configure(Setup::serve(UNREACHABLE_URL, &directory)).start().await;
        Self { trust, gateway }
    }

    /// Returns a client that trusts the gateway, with this certificate.
    fn client(
        &self,
        certificate: Option<&Issued>,
        configure: fn(ClientBuilder) -> ClientBuilder,
    ) -> Client {
        let authority = Certificate::from_pem(self.trust.servers.pem().as_bytes()).unwrap();
        let mut builder = Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .resolve("localhost", self.gateway.grpc);
        if let Some(certificate) = certificate {
            let identity = reqwest::Identity::from_pem(certificate.pem_with_key().as_bytes());
            builder = builder.identity(identity.unwrap());
        }
        configure(builder).build().unwrap()
    }

    fn call(&self, client: &Client, method: &str, message: &Value) -> RequestBuilder {
        let port = self.gateway.grpc.port();
        client
            .post(format!("https://localhost:{port}/thingspace.gateway.v1.GatewayService/{method}"))
            .header("content-type", "application/json")
            .body(message.to_string())
    }

    fn list(&self, client: &Client, account: &str) -> RequestBuilder {
        self.call(client, "ListChanges", &json!({ "accountName": account }))
    }
}

#[tokio::test]
async fn a_json_call_has_the_identity_and_the_permissions_of_its_token() {
    let secured = Secured::start().await;
    let client = secured.client(None, |builder| builder);
    let (status, error) = answer(secured.list(&client, ACCOUNT_A)).await;
    assert_eq!((status, reason(&error)), (401, "UNAUTHENTICATED"));
    let fleet = secured.trust.issuer.token("fleet");
    let (status, _) = answer(secured.list(&client, ACCOUNT_A).bearer_auth(&fleet)).await;
    assert_eq!(status, 200);
    let (status, error) = answer(secured.list(&client, ACCOUNT_B).bearer_auth(&fleet)).await;
    assert_eq!((status, reason(&error)), (403, "PERMISSION_DENIED"));
    let operator = secured.trust.issuer.token("account-operator");
    let (status, error) = answer(secured.list(&client, ACCOUNT_A).bearer_auth(&operator)).await;
    assert_eq!((status, reason(&error)), (403, "PERMISSION_DENIED"));
    let stranger = secured.trust.issuer.token("stranger");
    let (status, _) = answer(secured.list(&client, ACCOUNT_A).bearer_auth(stranger)).await;
    assert_eq!(status, 403);
    let expired = secured.trust.issuer.token_until("fleet", now() - Duration::from_secs(5));
    let (status, error) = answer(secured.list(&client, ACCOUNT_A).bearer_auth(&expired)).await;
    assert_eq!((status, reason(&error)), (401, "UNAUTHENTICATED"));
    // Also a stream that is refused has the status.
    let watch = secured.call(&client, "WatchAccount", &json!({ "accountName": ACCOUNT_B }));
    assert_eq!(answer(watch.bearer_auth(&fleet)).await.0, 403);
}

#[tokio::test]
async fn tls_offers_both_versions_of_http_and_client_certificates_identify_callers() {
    let secured = Secured::start().await;
    let certificate = secured.trust.clients.issue_named(&READER, 4_000);
    for (configure, version) in [
        ((|builder| builder) as fn(ClientBuilder) -> ClientBuilder, Version::HTTP_2),
        (ClientBuilder::http1_only, Version::HTTP_11),
    ] {
        let reader = secured.client(Some(&certificate), configure);
        let response = send(secured.list(&reader, ACCOUNT_A)).await;
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        let (status, error) = answer(secured.list(&reader, ACCOUNT_B)).await;
        assert_eq!((status, reason(&error)), (403, "PERMISSION_DENIED"));
        let change = secured.call(&reader, "ChangeEsimPlan", &json!({ "accountName": ACCOUNT_A }));
        assert_eq!(answer(change).await.0, 403);
    }
}

#[tokio::test]
async fn a_mesh_header_counts_only_from_a_trusted_address() {
    let secured = Secured::start().await;
    let header =
        "By=spiffe://test.example/ns/gateway/sa/gateway;URI=spiffe://test.example/ns/mesh/sa/fleet";
    let list =
        |client: &Client| secured.list(client, ACCOUNT_A).header("x-forwarded-client-cert", header);
    let trusted = |builder: ClientBuilder| {
        builder.local_address(std::net::IpAddr::from(Ipv4Addr::new(127, 0, 0, 2)))
    };
    let trusted = secured.client(None, trusted);
    assert_eq!(answer(list(&trusted)).await.0, 200);
    let other = secured.client(None, |builder| builder);
    assert_eq!(answer(list(&other)).await.0, 401);
}

#[tokio::test]
async fn a_stream_ends_with_reconnect_when_the_policy_or_the_credential_changes() {
    let secured = Secured::start().await;
    let client = secured.client(None, ClientBuilder::http1_only);
    let watch = |token: &str, resume: &str| {
        let request = json!({ "accountName": ACCOUNT_A, "resumeToken": resume });
        secured.call(&client, "WatchAccount", &request).bearer_auth(token)
    };
    let short = secured.trust.issuer.token_until("fleet", now() + Duration::from_secs(8));
    let mut lines = Lines::open(watch(&short, "")).await;
    let rest = lines.rest().await;
    let [opened, reconnect, error] = &*rest else { panic!("{rest:?}") };
    assert_eq!(event(opened), "opened");
    assert_eq!(reconnect["reconnect"]["reason"], "RECONNECT_REASON_CREDENTIAL_EXPIRED");
    assert_eq!(reason(&error["error"]), "RECONNECT");

    let token = reconnect["resumeToken"].as_str().unwrap();
    let url = secured.gateway.account_callback_url(ACCOUNT_A, "DeviceProfileService");
    deliver(&url, &esim_callback("request", 1)).await;
    let mut lines = Lines::open(watch(&secured.trust.issuer.token("fleet"), token)).await;
    assert_eq!(event(&lines.next().await.unwrap()), "opened");
    assert_eq!(event(&lines.next_result().await), "deviceResult");
    let without_fleet = POLICY.replace("jwt:fleet", "jwt:renamed");
    secured.trust.files.replace("policy.toml", &without_fleet);
    let rest = in_time(lines.rest()).await;
    let [.., reconnect, _] = &*rest else { panic!("{rest:?}") };
    assert_eq!(event(reconnect), "reconnect");
    let (status, _) = answer(watch(&secured.trust.issuer.token("fleet"), token)).await;
    assert_eq!(status, 403);
}
