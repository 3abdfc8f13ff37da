//! The protocol of a request, by its content type.

use http::{HeaderMap, HeaderValue, Request, Version, header};

/// The encoding of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Proto,
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    /// gRPC-Web. In its text form, bodies are base64.
    GrpcWeb {
        is_text: bool,
    },
    /// A message without an envelope: a unary call of the Connect protocol, or JSON lines.
    Unary(Encoding),
    /// Messages in envelopes: a streaming call of the Connect protocol.
    Stream(Encoding),
    Unknown,
}

impl Protocol {
    /// Returns the protocol of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/json" => Self::Unary(Encoding::Json),
            "application/proto" => Self::Unary(Encoding::Proto),
            "application/connect+json" => Self::Stream(Encoding::Json),
            "application/connect+proto" => Self::Stream(Encoding::Proto),
            "application/grpc-web" | "application/grpc-web+proto" => {
                Self::GrpcWeb { is_text: false }
            }
            "application/grpc-web-text" | "application/grpc-web-text+proto" => {
                Self::GrpcWeb { is_text: true }
            }
            "application/grpc" | "application/grpc+proto" => Self::Grpc,
            _ => Self::Unknown,
        }
    }
}

/// Returns true for a request of gRPC, which needs no translation. The common case, so it only looks at the version and
/// the content type. Web pages cannot make such a request of a gateway that does not allow their origin: browsers use
/// HTTP/2 only with TLS, and ask before they send this content type.
pub(in crate::grpc) fn is_grpc<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = value.and_then(|value| value.strip_prefix(b"application/grpc"));
    request.version() == Version::HTTP_2 && rest.is_some_and(|rest| !rest.starts_with(b"-"))
}

#[cfg(test)]
mod tests;
