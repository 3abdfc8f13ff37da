//! Enums whose values have names.

/// Defines an enum, the list of its values, and their names, so that no value can be missing in either.
macro_rules! named_enum {
    (
        $(#[$attribute:meta])*
        $name:ident { $( $(#[$doc:meta])* $value:ident = $text:literal, )+ }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$doc])* $value, )+
        }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$( $text ),+].len()] = [$( Self::$value ),+];

            /// Returns the name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$value => $text, )+
                }
            }
        }
    };
}

pub(super) use named_enum;
