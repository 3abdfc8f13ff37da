//! `serve`: runs the gateway until a signal.

use clap::Args;

use crate::{
    app::App,
    cli::{exit::ExitError, run::run_until_shutdown, settings_args::SettingsArgs},
    config::Mode,
};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeCommand {
    /// Use an embedded sandbox instead of ThingSpace
    #[arg(long)]
    pub(super) sandbox: bool,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

// === impl ServeCommand ===

impl ServeCommand {
    /// Runs the gateway until SIGTERM or SIGINT, then drains it. A second signal exits immediately.
    ///
    /// # Errors
    ///
    /// Exit code 78: invalid settings, or a journal that is damaged or belongs to another ThingSpace.
    /// Exit code 1: any other failed start, or a second signal.
    pub fn run(self) -> Result<(), ExitError> {
        let mode = if self.sandbox { Mode::ServeSandbox } else { Mode::Serve };
        let loaded = self.settings.load_for(mode)?;
        run_until_shutdown(loaded, |config, shutdown, telemetry| async move {
            let app = App::build(config, mode, telemetry, shutdown.clone());
            let app = app.await.map_err(|error| {
                ExitError::with_code(error.exit_code(), format!("cannot start: {error}"))
            })?;
            app.run(shutdown).await;
            Ok(())
        })
    }
}
