//! The program: reads its command line and does what was asked for.

use std::{
    io::{stderr, stdout},
    process::ExitCode,
};

use thingspace_gateway::cli::{
    admin_client,
    args::{self, Invocation},
    config, demo, healthcheck, journal, scenarios, serve, write_line,
};

fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    };
    let (mut out, mut err) = (stdout(), stderr());
    let done = match invocation {
        Invocation::Serve { sandbox, sources } => serve::serve(sandbox, &sources, &mut err),
        Invocation::Sandbox { sources } => serve::sandbox(&sources, &mut err),
        Invocation::SandboxScenarios { json } => scenarios::run(json, &mut out).map(|()| 0),
        Invocation::Demo {
            devices,
            json,
            target,
        } => demo::run(devices, json, target, &mut out, &mut err),
        Invocation::Admin { command, sources } => {
            admin_client::run(&command, &sources, &mut out, &mut err)
        }
        Invocation::AcceptLoss { sources } => journal::accept_loss(&sources, &mut out, &mut err),
        Invocation::Healthcheck { address, sources } => {
            healthcheck::run(address, &sources, &mut out, &mut err)
        }
        Invocation::ConfigCheck { mode, sources } => {
            config::check(&sources, mode, &mut out, &mut err)
        }
        Invocation::ConfigShow { mode, sources } => {
            config::show(&sources, mode, &mut out, &mut err)
        }
        Invocation::ConfigSchema => config::schema(&mut out).map(|()| 0),
        Invocation::ConfigDocs => config::docs(&mut out).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // A closed pipe, mostly: there is nobody left to tell.
            let _untold = write_line(&mut err, &error.to_string());
            ExitCode::FAILURE
        }
    }
}
