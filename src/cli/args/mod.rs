//! The command tree, and what an invocation asks for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Command};

use super::admin_client::AdminCommand;
use crate::config::{self, Mode, Sources};

mod tree;

use tree::{
    bool_flag, demo, healthcheck, journal, quarantine, sandbox_flag, thingspace, with_settings,
};

/// What the command line asks for. `Debug` shows no value of a setting.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the gateway.
    Serve {
        /// Together with a sandbox instead of the real ThingSpace.
        sandbox: bool,
        /// Where the settings come from.
        sources: Sources,
    },
    /// Run a sandbox alone.
    Sandbox {
        /// Where the settings come from.
        sources: Sources,
    },
    /// Tell which identifiers make which situation happen in a sandbox.
    SandboxScenarios {
        /// As JSON instead of a table.
        json: bool,
    },
    /// Show plan changes on a gateway with a sandbox.
    Demo {
        /// How many devices, 1 to 10,000.
        devices: u32,
        /// Whether to print JSON, one object a line, instead of something to watch.
        json: bool,
        /// On this gateway, `HOST:PORT`, instead of one of its own.
        target: Option<String>,
    },
    /// Try the settings without starting.
    ConfigCheck {
        /// What they are tried for.
        mode: Mode,
        /// Where the settings come from.
        sources: Sources,
    },
    /// Print the settings in effect.
    ConfigShow {
        /// What they are in effect for.
        mode: Mode,
        /// Where the settings come from.
        sources: Sources,
    },
    /// Print the documentation of all settings.
    ConfigDocs,
    /// Print a JSON Schema of the settings file.
    ConfigSchema,
    /// Give an order to a running gateway.
    Admin {
        /// Which.
        command: AdminCommand,
        /// Where the settings come from: they say where its socket is.
        sources: Sources,
    },
    /// Go on with what is left of a damaged journal.
    AcceptLoss {
        /// Where the settings come from: they say where the journal is.
        sources: Sources,
    },
    /// Ask a gateway whether it serves.
    Healthcheck {
        /// Which; unset, the one that the settings describe, on this machine.
        address: Option<String>,
        /// Where the settings come from.
        sources: Sources,
    },
}

/// The command tree. The flags of the settings come from the table of settings.
pub fn command() -> Command {
    let serve = Command::new("serve")
        .about("Run the gateway")
        .arg(sandbox_flag(
            "Run a sandbox with it instead of calling the real ThingSpace",
        ));
    let scenarios = Command::new("scenarios")
        .about("List the identifiers that make a situation happen, and which")
        .arg(bool_flag("json").help("Print JSON instead of a table"));
    let sandbox = Command::new("sandbox")
        .about("Run a ThingSpace that runs anywhere")
        .args_conflicts_with_subcommands(true)
        .subcommand(scenarios);
    let check = Command::new("check")
        .about("Try the settings without starting; exit code 78 when they would not do")
        .arg(sandbox_flag("Try them for `serve --sandbox`"));
    let show = Command::new("show")
        .about("Print the settings in effect and where each came from, secrets hidden")
        .arg(sandbox_flag("Print those of `serve --sandbox`"));
    let docs = Command::new("docs").about("Print the documentation of all settings, in Markdown");
    let schema = Command::new("schema").about("Print a JSON Schema of the settings file");
    let config = Command::new("config")
        .about("Check, show or document the settings")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([with_settings(check), with_settings(show), docs, schema]);
    Command::new("thingspace-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A gRPC gateway to Verizon's ThingSpace Connectivity Management API")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            with_settings(serve),
            with_settings(sandbox),
            demo(),
            with_settings(healthcheck()),
            quarantine(),
            thingspace(),
            journal(),
            config,
        ])
}

/// Reads the command line. `args` begin with the program's name; of `environment` only the variables
/// that begin with `TSGW_` are kept.
///
/// # Errors
///
/// What clap has to say, `--help` and `--version` included: its `exit` prints it.
pub fn parse<A, E, N, V>(args: A, environment: E) -> Result<Invocation, clap::Error>
where
    A: IntoIterator,
    A::Item: Into<OsString> + Clone,
    E: IntoIterator<Item = (N, V)>,
    N: Into<OsString>,
    V: Into<OsString>,
{
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    let sources = |matches: &ArgMatches| sources(matches).with_environment(environment);
    Ok(match matches.subcommand() {
        Some(("serve", matches)) => Invocation::Serve {
            sandbox: matches.get_flag("sandbox"),
            sources: sources(matches),
        },
        Some(("sandbox", matches)) => match matches.subcommand() {
            Some((_, matches)) => Invocation::SandboxScenarios {
                json: matches.get_flag("json"),
            },
            None => Invocation::Sandbox {
                sources: sources(matches),
            },
        },
        Some(("demo", matches)) => Invocation::Demo {
            devices: matches.get_one("devices").copied().unwrap_or_default(),
            json: matches.get_flag("json"),
            target: matches.get_one("target").cloned(),
        },
        Some(("healthcheck", matches)) => Invocation::Healthcheck {
            address: matches.get_one("address").cloned(),
            sources: sources(matches),
        },
        Some(("quarantine", matches)) => match matches.subcommand() {
            Some((name, matches)) => Invocation::Admin {
                command: quarantine_command(name, matches),
                sources: sources(matches),
            },
            None => return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "none")),
        },
        Some(("thingspace", matches)) => Invocation::Admin {
            command: AdminCommand::ResetLockout,
            sources: match matches.subcommand() {
                Some((_, matches)) => sources(matches),
                None => sources(matches),
            },
        },
        Some(("journal", matches)) => match matches.subcommand() {
            Some((_, matches)) => Invocation::AcceptLoss {
                sources: sources(matches),
            },
            None => return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "none")),
        },
        Some(("config", matches)) => match matches.subcommand() {
            Some(("check", matches)) => Invocation::ConfigCheck {
                mode: mode(matches),
                sources: sources(matches),
            },
            Some(("show", matches)) => Invocation::ConfigShow {
                mode: mode(matches),
                sources: sources(matches),
            },
            Some(("schema", _)) => Invocation::ConfigSchema,
            _ => Invocation::ConfigDocs,
        },
        // Not reached: clap asks for a subcommand and knows no other.
        _ => return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "no subcommand")),
    })
}

// === From matches ===

fn quarantine_command(name: &str, matches: &ArgMatches) -> AdminCommand {
    // `list` has no number, and asks clap for none.
    let id = || matches.get_one("id").copied().unwrap_or_default();
    match name {
        "show" => AdminCommand::Show(id()),
        "drop" => AdminCommand::Drop(id()),
        "replay" if matches.get_flag("all") => AdminCommand::ReplayAll,
        "replay" => AdminCommand::Replay(id()),
        _ => AdminCommand::List,
    }
}

fn mode(matches: &ArgMatches) -> Mode {
    if matches.get_flag("sandbox") {
        Mode::ServeSandbox
    } else {
        Mode::Serve
    }
}

fn sources(matches: &ArgMatches) -> Sources {
    let mut sources = Sources::default();
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        sources = sources.with_file(path);
    }
    for flag in config::flags() {
        if let Some(value) = matches.get_one::<String>(flag.key) {
            sources = sources.with_flag(flag.key, value);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOTHING: [(&str, &str); 0] = [];

    fn parsed(line: &str) -> Result<Invocation, clap::Error> {
        parse(line.split(' '), NOTHING)
    }

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn settings_are_flags_spelled_as_their_keys() {
        let line = "gateway serve --sandbox --callbacks.insecure --grpc.listen 127.0.0.1:7";
        let Ok(Invocation::Serve { sandbox, sources }) = parsed(line) else {
            panic!("not understood: {line}");
        };
        let config = Config::load(&sources).unwrap().config;
        assert!(sandbox && config.callbacks.insecure);
        assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7");
    }

    #[test]
    fn a_sandbox_takes_its_settings_or_lists_its_scenarios() {
        let line = "gateway sandbox --sandbox.seed 7";
        let Ok(Invocation::Sandbox { sources }) = parsed(line) else {
            panic!("not understood: {line}");
        };
        assert_eq!(Config::load(&sources).unwrap().config.sandbox.seed, 7);
        for (line, as_json) in [
            ("gateway sandbox scenarios", false),
            ("gateway sandbox scenarios --json", true),
        ] {
            let Ok(Invocation::SandboxScenarios { json }) = parsed(line) else {
                panic!("not understood: {line}");
            };
            assert_eq!(json, as_json);
        }
        assert!(parsed("gateway sandbox --sandbox.seed 7 scenarios").is_err());
    }

    #[test]
    fn the_environment_reaches_the_settings() {
        let variables = [("TSGW_SANDBOX__SEED", "7")];
        let Ok(Invocation::ConfigCheck { mode, sources }) =
            parse(["gateway", "config", "check", "--sandbox"], variables)
        else {
            panic!("not understood");
        };
        assert_eq!(mode, Mode::ServeSandbox);
        assert_eq!(Config::load(&sources).unwrap().config.sandbox.seed, 7);
    }

    #[test]
    fn a_secret_is_no_flag_and_is_not_repeated() {
        for line in [
            "gateway serve --callbacks.password=hush",
            "gateway serve --callbacks.password hush",
        ] {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains("--callbacks.password_file"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
