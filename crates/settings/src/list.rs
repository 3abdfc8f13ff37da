//! Lists of values.

use std::{fmt::Display, marker::PhantomData, net::IpAddr};

use ipnet::IpNet;
use serde_json::json;

use crate::kind::{Description, Kind, Syntax, toml_string};

/// An element of a list. Its text contains no comma.
pub trait ListItem: Display + Sized + 'static {
    /// Valid values, in the plural.
    const ACCEPTS: &'static str;
    /// Returns the value, or `None` if the text is invalid.
    fn parse(text: &str) -> Option<Self>;
}

/// A list of any length. In text, commas separate the elements, and an empty text is an empty list.
pub struct ListOf<T>(PhantomData<fn() -> T>);

/// Returns the kind for lists of `T`.
pub const fn list_of<T: ListItem>() -> ListOf<T> {
    ListOf(PhantomData)
}

impl<T: ListItem> Kind for ListOf<T> {
    type Value = Vec<T>;
    fn describe(&self) -> Description {
        Description {
            syntax: Syntax::List,
            schema: json!({ "type": "array", "items": { "type": "string" } }),
            ..Description::scalar(format!("a list of {}", T::ACCEPTS), "LIST")
        }
    }
    fn parse(&self, text: &str) -> Option<Vec<T>> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        text.split(',').map(|item| T::parse(item.trim())).collect()
    }
    fn toml(&self, value: &Vec<T>) -> String {
        let items: Vec<_> = value.iter().map(|item| toml_string(&item.to_string())).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A network, or a single address.
impl ListItem for IpNet {
    const ACCEPTS: &'static str = "networks such as `192.0.2.0/24` or single addresses";
    fn parse(text: &str) -> Option<Self> {
        let address = || text.parse::<IpAddr>().ok().map(Self::from);
        text.parse().ok().or_else(address)
    }
}
