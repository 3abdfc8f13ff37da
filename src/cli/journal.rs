//! `journal accept-loss`: what an operator decides about a journal that has lost something.

use std::io::{self, Write};

use serde_json::json;

use super::write_line;
use crate::{
    config::{self, Config, Sources},
    journal::{
        Origin,
        sqlite::{SqliteJournal, SqliteOptions},
    },
    telemetry::Instruments,
};

/// Goes on with what is left of a damaged journal. Prints what was done as JSON. Exit code 0 when it was
/// done, 1 when nothing is missing or it cannot be done, 78 when the settings cannot be read.
///
/// # Errors
///
/// What the writers say.
pub fn accept_loss(
    sources: &Sources,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let config = match Config::load(sources) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            write_line(err, &error.to_string())?;
            return Ok(config::EXIT_CODE);
        }
    };
    let dir = config.journal.dir;
    let accepted = SqliteJournal::accept_loss(&SqliteOptions {
        dir: dir.clone(),
        // Not asked about: the next start does that.
        origin: Origin::from_url(&config.thingspace.base_url),
        allow_network_filesystem: config.journal.allow_network_filesystem,
        instruments: Instruments::noop(),
    });
    match accepted {
        Ok(Some(accepted)) => {
            let line = json!({
                "journal_dir": dir,
                "position_kept": accepted.database_position,
                "position_reached_before": accepted.marker_position,
            });
            write_line(out, &line.to_string())?;
            Ok(0)
        }
        Ok(None) => {
            let dir = dir.display();
            write_line(
                err,
                &format!("journal.dir {dir}: nothing is missing, and nothing was changed"),
            )?;
            Ok(1)
        }
        Err(error) => {
            write_line(err, &error.to_string())?;
            Ok(1)
        }
    }
}
