//! The files of the page, which are part of the binary.

use aws_lc_rs::digest::{SHA256, digest};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Includes files of the folder `static`, with their types.
macro_rules! files {
    ($( $name:literal: $kind:expr, )+) => {
        &[$( ($name, $kind, include_bytes!(concat!("static/", $name))), )+]
    };
}

/// Name, content type and content.
const CONTENTS: &[(&str, &str, &[u8])] = files! {
    "index.html": HTML,
    "console.css": CSS,
    "icon.svg": SVG,
    "api.js": SCRIPT,
    "callbacks.js": SCRIPT,
    "change.js": SCRIPT,
    "changes.js": SCRIPT,
    "dialog.js": SCRIPT,
    "dom.js": SCRIPT,
    "main.js": SCRIPT,
    "pauses.js": SCRIPT,
    "plot.js": SCRIPT,
    "quarantine.js": SCRIPT,
    "state.js": SCRIPT,
    "thingspace.js": SCRIPT,
};

/// The files with their tags.
pub(super) struct Files(Vec<File>);

/// A file.
pub(super) struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    tag: HeaderValue,
}

impl Files {
    pub(super) fn new() -> Self {
        let files = CONTENTS.iter().map(|(name, content_type, content)| {
            let hash = digest(&SHA256, content);
            let tag = u64::from_le_bytes(hash.as_ref().first_chunk().copied().unwrap_or_default());
            let tag = HeaderValue::try_from(format!("\"{tag:016x}\""));
            let tag = tag.unwrap_or(HeaderValue::from_static("\"\""));
            File { name, content_type, content, tag }
        });
        Self(files.collect())
    }

    /// Returns the file with this name. An empty name is the page.
    pub(super) fn find(&self, name: &str) -> Option<&File> {
        let name = if name.is_empty() { "index.html" } else { name };
        self.0.iter().find(|file| file.name == name)
    }
}

impl File {
    /// Returns the response to a request with these headers. Browsers ask each time, so that a page is never older than
    /// the gateway.
    pub(super) fn response(&self, method: &Method, headers: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        let is_known = headers.get(IF_NONE_MATCH).is_some_and(|tags| {
            let tags = tags.to_str().unwrap_or_default();
            tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.tag)
        });
        let headers = response.headers_mut();
        headers.insert(ETAG, self.tag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CONTENT_LENGTH, self.content.len().into());
        if method != Method::HEAD {
            *response.body_mut() = Body::from(Bytes::from_static(self.content));
        }
        response
    }
}
