//! Lists of values.

use std::fmt::Display;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::kind::{Describe, ValueKind, toml_string};

/// Any number of a kind; in text, commas part them, and an empty text is none.
pub(super) struct ListOf<M>(pub(super) M);

/// A kind whose values can be members of a list: their text has no comma.
pub(super) trait ListItem: Sync {
    /// What it is in the program.
    type Value: Display;
    /// What is accepted, in the plural.
    const ACCEPTS: &'static str;
    /// Reads one, if it is acceptable.
    fn parse(&self, text: &str) -> Option<Self::Value>;
}

impl<M: ListItem> Describe for ListOf<M> {
    fn accepts(&self) -> String {
        format!("a list of {}", M::ACCEPTS)
    }
    fn placeholder(&self) -> &'static str {
        "LIST"
    }
    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string" } })
    }
    fn is_list(&self) -> bool {
        true
    }
}

impl<M: ListItem> ValueKind for ListOf<M> {
    type Value = Vec<M::Value>;
    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        text.split(',')
            .map(|member| self.0.parse(member.trim()))
            .collect()
    }
    fn toml(&self, value: &Self::Value) -> String {
        let members: Vec<_> = value.iter().map(|m| toml_string(&m.to_string())).collect();
        format!("[{}]", members.join(", "))
    }
}

/// A network, or one address.
pub(super) struct Network;

impl ListItem for Network {
    type Value = IpNet;
    const ACCEPTS: &'static str = "networks such as `192.0.2.0/24` or single addresses";
    fn parse(&self, text: &str) -> Option<IpNet> {
        let one = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(one)
    }
}

/// The name of a callback service. The set is open: ThingSpace adds some.
pub(super) struct CallbackServiceName;

impl ListItem for CallbackServiceName {
    type Value = String;
    const ACCEPTS: &'static str = "callback service names such as `CarrierService`";
    fn parse(&self, text: &str) -> Option<String> {
        let fits = (1..=64).contains(&text.len());
        let name = fits && text.chars().all(|c| c.is_ascii_alphanumeric());
        name.then(|| text.to_owned())
    }
}

/// A billing account. Told as `domain::names::AccountName` tells them; nothing is imported here.
pub(super) struct BillingAccount;

impl ListItem for BillingAccount {
    type Value = String;
    const ACCEPTS: &'static str =
        "account names of 3 to 32 letters, digits and dashes, such as `0000123456-00001`";
    fn parse(&self, text: &str) -> Option<String> {
        let fits = (3..=32).contains(&text.len());
        let name = fits && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        name.then(|| text.to_owned())
    }
}
