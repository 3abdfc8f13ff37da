//! Checks of the settings for forwarding callbacks.

use secrecy::ExposeSecret as _;
use thingspace_loopback::is_loopback_url;
use url::Url;

use super::{Check, Config};

const KEY: &str = "callbacks.forward_url";

impl Config {
    /// Warns about forwarding settings without effect, and about insecure or too short ones.
    pub(super) fn check_forwarding(&self, warnings: &mut Vec<String>) -> Check {
        let callbacks = &self.callbacks;
        let Some(template) = self.load_secret(KEY, &callbacks.forward_url)? else {
            for key in ["callbacks.forward_max_age", "callbacks.forward_max_waiting"] {
                if self.is_set(key) {
                    warnings.push(format!("{key} has no effect without {KEY}"));
                }
            }
            return Ok(());
        };
        let filled = template
            .expose_secret()
            .replace("{service}", "CarrierService");
        let Ok(url) = Url::parse(&filled) else {
            return Err(self.fault(KEY, "expected an `http` or `https` URL"));
        };
        if url.scheme() == "http" && !is_loopback_url(&url) {
            warnings.push(format!(
                "{KEY} is plain http: callbacks and callbacks.password travel in clear"
            ));
        }
        if self.journal.retention < callbacks.forward_max_age {
            warnings.push(
                "journal.retention is shorter than callbacks.forward_max_age: callbacks that are \
                 deleted from the journal are not forwarded"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
