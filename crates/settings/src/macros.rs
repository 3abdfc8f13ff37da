//! The macros that define a program's settings.

/// Defines a group of settings: a table of the settings file.
///
/// ```text
/// settings_group! {
///     /// Documentation of the group.
///     grpc: GrpcConfig {
///         /// Documentation of the setting, with units and bounds.
///         listen: SocketAddr = WithDefault(SocketAddress) or "0.0.0.0:50051";
///     }
/// }
/// ```
///
/// A setting has one of three forms:
///
/// * `name: Type = WithDefault(kind) or "default";`
/// * `name: Option<Type> = Optional(kind);`
/// * `name: Option<Secret> = Sensitive(format);`
///
/// A kind implements [`Kind`](crate::Kind); a format is a [`SecretFormat`](crate::SecretFormat). The
/// macro generates a struct that implements [`Group`](crate::Group).
#[macro_export]
macro_rules! settings_group {
    (
        $(#[doc = $group_doc:literal])+
        $group:ident: $Group:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty = $Form:ident($kind:expr) $(or $default:literal)?;
            )+
        }
    ) => {
        $(#[doc = $group_doc])+
        #[derive(Clone, Debug)]
        pub struct $Group {
            $( $(#[doc = $doc])+ pub $field: $Type, )+
        }

        impl $crate::Group for $Group {
            const TABLE: $crate::SettingGroup = $crate::SettingGroup {
                name: stringify!($group),
                doc: concat!($($group_doc),+).trim_ascii(),
                settings: &[$(
                    $crate::Setting {
                        key: $crate::settings_group!(@key $group $field),
                        file_key: $crate::settings_group!(@file_key $Form $group $field),
                        doc: concat!($($doc),+).trim_ascii(),
                        default: $crate::settings_group!(@default $($default)?),
                        values: || $crate::Kind::describe(&$kind),
                    },
                )+],
            };

            fn parse(values: &$crate::Values) -> Result<Self, $crate::ConfigError> {
                Ok(Self {
                    $( $field: $crate::settings_group!(
                        @parse values $Form($kind) $group $field $($default)?
                    ), )+
                })
            }

            fn toml_values(&self) -> Vec<Option<String>> {
                vec![$(
                    $crate::settings_group!(@value $Form(self.$field))
                        .map(|value| $crate::Kind::toml(&$kind, value)),
                )+]
            }
        }
    };
    (@key $group:ident $field:ident) => { concat!(stringify!($group), ".", stringify!($field)) };
    (@file_key Sensitive $group:ident $field:ident) => {
        Some(concat!(stringify!($group), ".", stringify!($field), "_file"))
    };
    (@file_key $Form:ident $group:ident $field:ident) => { None };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@parse $values:ident WithDefault($kind:expr) $group:ident $field:ident $default:literal) => {
        $values.required($crate::settings_group!(@key $group $field), $default, &$kind)?
    };
    (@parse $values:ident Optional($kind:expr) $group:ident $field:ident) => {
        $values.optional($crate::settings_group!(@key $group $field), &$kind)?
    };
    (@parse $values:ident Sensitive($format:expr) $group:ident $field:ident) => {
        $values.secret(
            $crate::settings_group!(@key $group $field),
            concat!(stringify!($group), ".", stringify!($field), "_file"),
            &$format,
        )?
    };
    (@value WithDefault($value:expr)) => { Some(&$value) };
    (@value $Form:ident($value:expr)) => { $value.as_ref() };
}

/// Defines the settings of a program.
///
/// ```text
/// settings! {
///     /// Documentation of the struct.
///     Config, variables "TSGW_";
///
///     /// Documentation of the group.
///     grpc: GrpcConfig { … }
///
///     use sandbox: thingspace_sandbox::Settings;
/// }
/// ```
///
/// The braces contain what [`settings_group!`] expects; `use` adds a group that another crate defines.
/// The macro generates the groups, the struct of all groups, its methods, and `static TABLE`, a
/// [`Table`](crate::Table).
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $config_doc:literal])+
        $Config:ident, variables $prefix:literal;
        $(
            $(#[doc = $group_doc:literal])+
            $group:ident: $Group:ident { $($settings:tt)+ }
        )+
        $( use $used:ident: $Used:ty; )*
    ) => {
        $( $crate::settings_group! {
            $(#[doc = $group_doc])+
            $group: $Group { $($settings)+ }
        } )+

        $(#[doc = $config_doc])+
        #[derive(Clone, Debug)]
        pub struct $Config {
            $( $(#[doc = $group_doc])+ pub $group: $Group, )+
            $( #[doc = concat!("The settings `", stringify!($used), ".…`.")] pub $used: $Used, )*
            origins: $crate::Origins,
        }

        /// All settings.
        pub static TABLE: $crate::Table = $crate::Table {
            env_prefix: $prefix,
            env_config_file: concat!($prefix, "CONFIG"),
            groups: &[
                $( <$Group as $crate::Group>::TABLE, )+
                $( <$Used as $crate::Group>::TABLE, )*
            ],
        };

        impl $Config {
            /// Reads all sources. Checks each setting, but no combination of settings.
            ///
            /// # Errors
            ///
            /// The first unknown key, invalid value or unreadable file.
            pub fn load(
                sources: &$crate::Sources,
            ) -> Result<$crate::LoadedConfig<Self>, $crate::ConfigError> {
                let (values, warnings) = sources.read(&TABLE)?;
                let config = Self {
                    $( $group: $crate::Group::parse(&values)?, )+
                    $( $used: $crate::Group::parse(&values)?, )*
                    origins: values.into_origins(),
                };
                Ok($crate::LoadedConfig { config, warnings })
            }

            /// True if a source sets this key. For a secret, also true if a source sets its file.
            pub fn is_set(&self, key: &str) -> bool {
                self.origins.contains_key(key)
            }

            /// The keys that a source sets, sorted.
            pub fn set_keys(&self) -> impl Iterator<Item = &'static str> {
                self.origins.keys().copied()
            }

            /// An error about the value of this key.
            pub fn error(&self, key: &str, problem: &str) -> $crate::ConfigError {
                $crate::ConfigError::new(key, self.origins.get(key).map(String::as_str), problem)
            }

            /// The effective settings as a settings file, with the source of each and without
            /// secrets.
            pub fn to_toml(&self) -> String {
                let values = [
                    $( $crate::Group::toml_values(&self.$group), )+
                    $( $crate::Group::toml_values(&self.$used), )*
                ];
                $crate::render_toml(&TABLE, values, &self.origins)
            }
        }
    };
}
