use super::*;

fn headers(content_type: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])
}

#[test]
fn the_content_type_names_the_protocol() {
    for (content_type, protocol) in [
        ("application/json", Protocol::Unary(Encoding::Json)),
        ("application/json; charset=utf-8", Protocol::Unary(Encoding::Json)),
        ("Application/JSON", Protocol::Unary(Encoding::Json)),
        ("application/proto", Protocol::Unary(Encoding::Proto)),
        ("application/connect+json", Protocol::Stream(Encoding::Json)),
        ("application/connect+proto", Protocol::Stream(Encoding::Proto)),
        ("application/grpc-web", Protocol::GrpcWeb { is_text: false }),
        ("application/grpc-web+proto", Protocol::GrpcWeb { is_text: false }),
        ("application/grpc-web-text", Protocol::GrpcWeb { is_text: true }),
        ("application/grpc-web-text+proto", Protocol::GrpcWeb { is_text: true }),
        ("application/grpc", Protocol::Grpc),
        ("application/grpc+proto", Protocol::Grpc),
        ("application/grpc-web+json", Protocol::Unknown),
        ("application/grpc-other", Protocol::Unknown),
        ("text/plain", Protocol::Unknown),
        ("", Protocol::Unknown),
    ] {
        assert_eq!(Protocol::of(&headers(content_type)), protocol, "{content_type}");
    }
    assert_eq!(Protocol::of(&HeaderMap::new()), Protocol::Unknown);
}

#[test]
fn only_grpc_over_http_2_needs_no_translation() {
    for (version, content_type, expected) in [
        (Version::HTTP_2, "application/grpc", true),
        (Version::HTTP_2, "application/grpc+proto", true),
        (Version::HTTP_2, "application/grpc;x=y", true),
        (Version::HTTP_11, "application/grpc", false),
        (Version::HTTP_2, "application/grpc-web", false),
        (Version::HTTP_2, "application/grpc-web-text", false),
        (Version::HTTP_2, "application/json", false),
        (Version::HTTP_2, "", false),
    ] {
        let mut request = Request::builder().version(version).body(()).unwrap();
        *request.headers_mut() = headers(content_type);
        assert_eq!(is_grpc(&request), expected, "{version:?} {content_type}");
    }
}
