//! Settings with a fixed set of values.

use std::marker::PhantomData;

use serde_json::json;

use crate::kind::{Description, Kind, toml_string};

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
