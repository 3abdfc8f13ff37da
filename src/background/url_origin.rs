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
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_of_a_foreign_listener_are_shown() {
        let shown = url_origin("https://u:p@old.example.com:9002/token-1?key=2#3");
        assert_eq!(shown, "https://old.example.com:9002");
        assert_eq!(url_origin("what a secret"), "(invalid URL)");
    }

    #[test]
    fn the_default_port_of_the_scheme_is_shown() {
        let shown = url_origin("https://old.example.com/hooks/X?token=hush");
        assert_eq!(shown, "https://old.example.com:443");
    }
}
