//! The parts of the command tree.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, Command, value_parser};

use crate::config;

/// Most devices of a `demo`: as many as one change may carry.
const MAX_DEMO_DEVICES: i64 = 10_000;

pub(super) fn demo() -> Command {
    Command::new("demo")
        .about("Change some plans on a gateway with a sandbox and watch the results arrive")
        .arg(
            Arg::new("devices")
                .long("devices")
                .value_name("N")
                .default_value("12")
                .value_parser(value_parser!(u32).range(1..=MAX_DEMO_DEVICES))
                .help("How many devices to change, 1 to 10,000"),
        )
        .arg(bool_flag("json").help("Print JSON, one object a line"))
        .arg(
            Arg::new("target")
                .long("target")
                .value_name("HOST:PORT")
                .help(
                    "Change them on this gateway instead of one of its own; it must have a sandbox \
                     behind it, since the real ThingSpace is never asked for the identifiers used",
                ),
        )
}

pub(super) fn healthcheck() -> Command {
    Command::new("healthcheck")
        .about("Ask a gateway whether it serves: exit code 0 when it does, otherwise 1")
        .arg(
            Arg::new("address")
                .long("address")
                .value_name("HOST:PORT")
                .help("A port that answers gRPC health; by default `admin.listen` on this machine"),
        )
}

pub(super) fn quarantine() -> Command {
    let id = || {
        Arg::new("id")
            .value_name("ID")
            .value_parser(value_parser!(u64).range(1..))
            .required(true)
            .help("The entry's number, as `list` shows it")
    };
    let list = Command::new("list").about("List the entries, one JSON object a line");
    let show = Command::new("show")
        .about("Show an entry with its body")
        .arg(id());
    let drop = Command::new("drop")
        .about("Forget an entry for good")
        .arg(id());
    let replay = Command::new("replay")
        .about("Judge an entry anew by the settings as they are now, and store it if it will do")
        .arg(id().required(false))
        .arg(bool_flag("all").help("All entries").conflicts_with("id"))
        .group(ArgGroup::new("which").args(["id", "all"]).required(true));
    Command::new("quarantine")
        .about("Callbacks that could not be used, on the gateway that runs here")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list, show, replay, drop].map(with_settings))
}

pub(super) fn thingspace() -> Command {
    let reset_lockout = Command::new("reset-lockout").about(
        "Let the gateway that runs here try its credentials again although they were refused twice",
    );
    Command::new("thingspace")
        .about("What an operator decides about the way to ThingSpace")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(reset_lockout))
}

pub(super) fn journal() -> Command {
    let accept_loss = Command::new("accept-loss").about(
        "Go on with what is left of a journal that has lost something: changes that it has forgotten are \
         sent again by their keys, and resume tokens end. The gateway must not run",
    );
    Command::new("journal")
        .about("Repair the journal of a gateway that is stopped")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(accept_loss))
}

pub(super) fn bool_flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

pub(super) fn sandbox_flag(help: &'static str) -> Arg {
    bool_flag("sandbox").help(help)
}

/// Adds `--config` and a flag for each setting.
pub(super) fn with_settings(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(format!(
            "Settings file, in TOML [env: {}]",
            config::TABLE.env_config_file
        ));
    command
        .arg(file)
        .next_help_heading("Settings")
        .args(config::flags().iter().map(setting_flag))
}

fn setting_flag(flag: &config::Flag) -> Arg {
    let arg = Arg::new(flag.key)
        .long(flag.key)
        .value_name(flag.placeholder)
        .value_parser(ValueParser::string())
        .help(flag.help.clone());
    if flag.is_switch {
        arg.num_args(0..=1).default_missing_value("true")
    } else {
        // A bad value such as `-1` is for the settings to judge, not an unknown flag.
        arg.allow_hyphen_values(true)
    }
}
