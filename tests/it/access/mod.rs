//! Access control: the permissions of callers on accounts.

mod audit;
mod callers;
mod calls;
mod hidden;
mod matrix;
mod reload;
mod revoked;
mod streams;

use crate::support::{
    authority::{Authority, TlsFiles},
    gateway::{Gateway, Setup, TestDir},
    thingspace::FakeThingSpace,
    tokens::{AUDIENCE, ISSUER, Issuer, key_set},
};

use callers::{Connection, Credentials};

/// The policy of the table of access.
const POLICY: &str = include_str!("../../access/policy.toml");

/// The account that `fleet` may change.
pub const ACCOUNT_A: &str = "0000123456-00001";
pub const ACCOUNT_B: &str = "0000999999-00001";

/// The trust anchors of a gateway with access control.
pub struct Trust {
    pub servers: Authority,
    pub clients: Authority,
    pub issuer: Issuer,
    pub files: TlsFiles,
}

impl Trust {
    /// Writes the files of a gateway with this policy.
    pub fn new(policy: &str) -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let files = TlsFiles::new(&servers.issue(), &[&clients]);
        let issuer = Issuer::new("first");
        files.replace("jwks.json", &key_set(&[&issuer]));
        files.replace("policy.toml", policy);
        Self { servers, clients, issuer, files }
    }

    /// Adds TLS, all methods of authentication and the policy.
    pub fn configure(&self, setup: Setup) -> Setup {
        setup
            .set("grpc.tls_cert_file", &self.files.path("cert.pem"))
            .set("grpc.tls_key_file", &self.files.path("key.pem"))
            .set("grpc.tls_client_ca_file", &self.files.path("ca.pem"))
            .set("auth.mode", "mtls,jwt,mesh")
            .set("auth.policy_file", &self.files.path("policy.toml"))
            .set("auth.jwt_issuer", ISSUER)
            .set("auth.jwt_audience", AUDIENCE)
            .set("auth.jwt_jwks_file", &self.files.path("jwks.json"))
            .set("auth.jwt_leeway", "0s")
            .set("auth.mesh_header", "x-forwarded-client-cert")
            .set("auth.mesh_trusted_cidrs", "127.0.0.2/32")
    }
}

/// A gateway with this policy, and its fake ThingSpace.
pub struct RestrictedGateway {
    pub trust: Trust,
    pub directory: TestDir,
    pub thingspace: FakeThingSpace,
    pub gateway: Gateway,
}

impl RestrictedGateway {
    pub async fn start() -> Self {
        Self::start_with(|setup, _| setup).await
    }

    /// Starts a gateway with changed settings.
    pub async fn start_with(configure: impl FnOnce(Setup, &TestDir) -> Setup) -> Self {
        let trust = Trust::new(POLICY);
        let (directory, thingspace) = (TestDir::new(), FakeThingSpace::start().await);
        let setup = trust.configure(Setup::serve(&thingspace.base_url(), &directory));
        let gateway = configure(setup, &directory).start().await;
        Self { trust, directory, thingspace, gateway }
    }

    /// Connects as a caller of the table.
    pub async fn connect(&self, caller: &str) -> Connection {
        self.try_connect(caller).await.expect("a connection")
    }

    /// Connects as a caller of the table. `None` if the gateway refuses the connection.
    pub async fn try_connect(&self, caller: &str) -> Option<Connection> {
        Credentials::of(caller, &self.trust).connect(&self.gateway, &self.trust).await
    }
}
