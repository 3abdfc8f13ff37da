//! `demo`: changes some plans on a gateway with a sandbox and shows the results.

mod command;
mod gateway;
mod report;
mod requests;
mod results;
mod story;

pub(super) use command::DemoCommand;
