//! TLS, identity and policy apply to the console.

use reqwest::{Certificate, Client};
use serde_json::json;

use super::*;
use crate::{
    access::{ACCOUNT_A, Trust},
    support::{
        gateway::{TestDir, UNREACHABLE_URL},
        wait::eventually,
    },
};

const POLICY: &str = include_str!("../../access/policy.toml");

/// A gateway with TLS, identities, the policy of the matrix, and a console.
struct Secured {
    trust: Trust,
    gateway: Gateway,
    client: Client,
}

impl Secured {
    async fn start() -> Self {
        let (trust, directory) = (Trust::new(POLICY), TestDir::new());
        let setup = trust.configure(Setup::serve(UNREACHABLE_URL, &directory));
        let gateway = with_console(setup).start().await;
        let authority = Certificate::from_pem(trust.servers.pem().as_bytes()).unwrap();
        let console = gateway.console.unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([authority]);
        let client = client.resolve("localhost", console).build().unwrap();
        Self { trust, gateway, client }
    }

    fn call(&self, method: &str, message: &Value) -> RequestBuilder {
        let port = self.gateway.console.unwrap().port();
        let own = format!("https://localhost:{port}");
        self.client
            .post(format!("{own}/thingspace.gateway.v1.{method}"))
            .header("content-type", "application/json")
            .header("origin", own)
            .body(message.to_string())
    }

    async fn status(&self, caller: &str, method: &str, message: &Value) -> u16 {
        let call = self.call(method, message).bearer_auth(self.trust.issuer.token(caller));
        status_and_text(call).await.0
    }
}

#[tokio::test]
async fn a_call_has_the_permissions_of_its_token() {
    let secured = Secured::start().await;
    let port = secured.gateway.console.unwrap().port();
    // The page is no secret.
    let page = secured.client.get(format!("https://localhost:{port}/console/"));
    assert_eq!(status_and_text(page).await.0, 200);
    let without = secured.call("GatewayService/GetServerInfo", &json!({}));
    assert_eq!(status_and_text(without).await.0, 401);
    let list = json!({ "accountName": ACCOUNT_A });
    for (caller, info, status, changes, pause) in [
        ("stranger", 403, 403, 403, 403),
        ("fleet", 200, 403, 200, 403),
        ("monitor", 200, 200, 403, 403),
        ("account-monitor", 200, 403, 403, 403),
        ("account-operator", 200, 403, 403, 403),
        ("admin", 200, 200, 200, 200),
    ] {
        assert_eq!(
            secured.status(caller, "GatewayService/GetServerInfo", &json!({})).await,
            info,
            "{caller}"
        );
        assert_eq!(
            secured.status(caller, "OperatorService/GetStatus", &json!({})).await,
            status,
            "{caller}"
        );
        assert_eq!(
            secured.status(caller, "GatewayService/ListChanges", &list).await,
            changes,
            "{caller}"
        );
        assert_eq!(
            secured.status(caller, "OperatorService/PauseChanges", &json!({})).await,
            pause,
            "{caller}"
        );
        assert_eq!(
            secured.status(caller, "OperatorService/ResumeChanges", &json!({})).await,
            pause,
            "{caller}"
        );
    }
    // An operator of one account.
    assert_eq!(
        secured.status("account-operator", "OperatorService/PauseChanges", &list).await,
        200
    );
    let change = json!({ "accountName": ACCOUNT_A });
    assert_eq!(secured.status("admin", "GatewayService/ChangeEsimPlan", &change).await, 404);
    let http = secured.call("OperatorService/GetStatus", &json!({}));
    let http = http
        .bearer_auth(secured.trust.issuer.token("admin"))
        .header("origin", format!("http://localhost:{port}"));
    assert_eq!(status_and_text(http).await.0, 403);
}

#[tokio::test]
async fn the_caller_learns_its_permissions_also_after_a_change_of_the_policy() {
    let secured = Secured::start().await;
    let caller = async |name: &str| {
        let call = secured.call("GatewayService/GetServerInfo", &json!({}));
        let (status, text) =
            status_and_text(call.bearer_auth(secured.trust.issuer.token(name))).await;
        let info: Value = serde_json::from_str(&text).unwrap();
        (status, info["caller"].clone())
    };
    let (_, fleet) = caller("fleet").await;
    assert_eq!(fleet, json!({ "name": "fleet", "permissions": ["change", "watch", "list"] }));
    let (_, admin) = caller("admin").await;
    let all = json!(["change", "watch", "list", "monitor", "operate"]);
    assert_eq!(
        admin,
        json!({ "name": "admin", "permissions": all, "permissionsOnAllAccounts": all })
    );
    let (_, operator) = caller("account-operator").await;
    assert_eq!(
        operator,
        json!({ "name": "account-operator", "permissions": ["monitor", "operate"] })
    );
    secured.trust.files.replace("policy.toml", &POLICY.replace("jwt:fleet", "jwt:renamed"));
    eventually("the caller is unknown", async || caller("fleet").await.0 == 403).await;
}
