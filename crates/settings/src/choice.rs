//! Settings with a fixed set of values.

use std::marker::PhantomData;

use serde_json::json;

use crate::kind::{Description, Kind, Syntax, toml_string};

/// A type with a fixed set of values. Implement it with [`choices!`](crate::choices).
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value, with its name in settings.
    const ALL: &'static [(&'static str, Self)];

    /// The value's name in settings.
    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, value)| *value == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Defines enums that implement [`Choice`]: `Variant = "name"`.
#[macro_export]
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $Name:ident {
            $( $(#[$variant_meta:meta])* $Variant:ident = $name:literal ),+ $(,)?
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name {
            $( $(#[$variant_meta])* #[doc = concat!("`", $name, "`")] $Variant, )+
        }

        impl $crate::Choice for $Name {
            const ALL: &'static [(&'static str, Self)] = &[$( ($name, Self::$Variant), )+];
        }
    )+};
}

/// A value of `T`, by its name in any case.
pub struct OneOf<T>(PhantomData<fn() -> T>);

/// Returns the kind for values of `T`.
pub const fn one_of<T: Choice>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T: Choice> Kind for OneOf<T> {
    type Value = T;
    fn describe(&self) -> Description {
        let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
        // `a`, `b` or `c`
        let quoted = format!("`{}`", names.join("`, `"));
        let accepts = match quoted.rsplit_once(", ") {
            Some((first, last)) => format!("{first} or {last}"),
            None => quoted,
        };
        Description { schema: json!({ "enum": names }), ..Description::scalar(accepts, "WORD") }
    }
    fn parse(&self, text: &str) -> Option<T> {
        let mut all = T::ALL.iter();
        let found = all.find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value)
    }
    fn toml(&self, value: &T) -> String {
        toml_string(value.name())
    }
}

/// One or more values of `T`, by their names in any case. In text, commas separate them.
pub struct AnyOf<T>(PhantomData<fn() -> T>);

/// Returns the kind for lists of values of `T`, with at least one value.
pub const fn any_of<T: Choice>() -> AnyOf<T> {
    AnyOf(PhantomData)
}

impl<T: Choice> Kind for AnyOf<T> {
    type Value = Vec<T>;
    fn describe(&self) -> Description {
        let one = one_of::<T>().describe();
        let list = json!({ "type": "array", "minItems": 1, "items": one.schema });
        Description {
            syntax: Syntax::List,
            // The file accepts a single value without brackets.
            schema: json!({ "anyOf": [one.schema, list] }),
            ..Description::scalar(format!("one or more of {}", one.accepts), "LIST")
        }
    }
    fn parse(&self, text: &str) -> Option<Vec<T>> {
        text.split(',').map(|name| one_of().parse(name.trim())).collect()
    }
    fn toml(&self, values: &Vec<T>) -> String {
        let items: Vec<_> = values.iter().map(|value| one_of().toml(value)).collect();
        format!("[{}]", items.join(", "))
    }
}
