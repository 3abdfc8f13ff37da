//! The part of a URL that may be logged.

use url::Url;

/// Maximum number of characters of the host.
const MAX_HOST: usize = 255;

/// Returns scheme, host and port of a URL. The other parts can contain secrets.
pub(super) fn url_origin(url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return "(invalid URL)".to_owned();
    };
    let host = url.host_str().unwrap_or_default();
    let host: String = host.chars().take(MAX_HOST).collect();
    match url.port_or_known_default() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

#[cfg(test)]
mod tests;
