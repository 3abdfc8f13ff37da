use axum::{Router, body::Body};
use http_body_util::BodyExt;
use tonic_reflection::server::Builder;
use tower::ServiceExt;

use super::*;
use crate::{
    grpc::middleware::{Layers, with_layers},
    proto,
};

#[tokio::test]
async fn an_unknown_symbol_of_reflection_is_not_found_without_a_reason_of_the_gateway() {
    let reflection = Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let router = with_layers(Router::new().route_service(path, reflection), Layers::default());
    // `file_containing_symbol` is field 4.
    let message = [&[0, 0, 0, 0, 6, 0x22, 4][..], b"nope"].concat();
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .body(Body::from(message))
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
    assert_eq!((status.code(), status.details()), (Code::NotFound, &[][..]));
}
